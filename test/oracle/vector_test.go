package oracle

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A suite is one file of recordings.
type suite struct {
	Lists map[string][]string
	Cases []recording
}

// A recording is what IPVS did in one case.
type recording struct {
	Name  string
	Proto string
	VIP   string
	Steps []step
}

// A step has one of the fields that README.md lists.
type step struct {
	Do     []string
	Sysctl map[string]int
	Set    []int
	Mark   *uint32
	Sleep  float64
	Pkts   []string
	List   string
	Got    string
	Dests  *[]string
	Conns  *[]string
	States []string
	Frame  *frame
	Run    *struct{ Args []string }
	Note   string
}

// A frame came in, and others went out.
type frame struct {
	What string
	On   string
	In   hexBytes
	Out  []output
}

// An output is a frame that went out.
type output struct {
	on       string
	frame    []byte
	maskedID bool // the IPv4 identification is random, and 0 here
}

// hexBytes are written in hexadecimal.
type hexBytes []byte

func (b *hexBytes) UnmarshalText(text []byte) (err error) {
	*b, err = hex.DecodeString(string(text))
	return err
}

// UnmarshalJSON reads [interface, hexadecimal, words, masked fields].
func (o *output) UnmarshalJSON(text []byte) error {
	var fields []string
	if err := json.Unmarshal(text, &fields); err != nil {
		return err
	}
	if len(fields) < 3 {
		return fmt.Errorf("output %s: want at least 3 fields", text)
	}
	o.on = fields[0]
	o.maskedID = len(fields) > 3 && fields[3] == "id"
	var err error
	o.frame, err = hex.DecodeString(fields[1])
	return err
}

func readSuite(t *testing.T, name string) suite {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("vectors", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var s suite
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatalf("read recordings %s: %v", name, err)
	}
	for c := range s.Cases {
		for i := range s.Cases[c].Steps {
			st := &s.Cases[c].Steps[i]
			if st.List != "" {
				st.Pkts = s.Lists[st.List]
			}
			if len(st.Pkts) != len(st.Got) {
				t.Fatalf("recording %s: %d packets have %d outcomes", s.Cases[c].Name, len(st.Pkts), len(st.Got))
			}
		}
	}
	return s
}

// reads reports whether a step has something to compare.
func (st *step) reads() bool {
	return st.Got != "" || st.Dests != nil || st.Conns != nil || st.States != nil || st.Frame != nil
}

// sleeps returns the time that passes in a step.
func (st *step) sleeps() time.Duration { return time.Duration(st.Sleep * float64(time.Second)) }

// timeouts returns what the step hands to ipvsadm --set.
func (st *step) timeouts() (args []string) {
	for _, seconds := range st.Set {
		args = append(args, fmt.Sprint(seconds))
	}
	return args
}
