package scenario

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func TestFilesAreWrittenAsTheyAreRead(t *testing.T) {
	root := os.DirFS("../testdata")
	names, err := filepath.Glob("../testdata/*/*.scenario")
	if err != nil || len(names) == 0 {
		t.Fatalf("find scenarios: %v, %d", err, len(names))
	}
	for _, name := range names {
		file, err := ReadFile(root, strings.TrimPrefix(name, "../testdata/"))
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(strings.Split(string(text), "\n"), strings.Split(file.String(), "\n")); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestParse(t *testing.T) {
	files := fstest.MapFS{
		"a/lists": {Data: []byte("# all\n\nfew:\n 203.0.113.1:1\n 203.0.113.2:2/A\n")},
		"a/b.scenario": {Data: []byte(`# of the file

scenario one
# of the scenario

to tcp 192.0.2.10:80
# of the step
send @few
= a?
send 203.0.113.3:3
  203.0.113.4:4
ipvsadm -R
< -C
<
| out
!
= exit 2
`)},
	}
	got, err := ReadFile(files, "a/b.scenario")
	if err != nil {
		t.Fatal(err)
	}
	want := &File{
		Comment: []string{"of the file"},
		Scenarios: []*Scenario{{
			Name: "one", Comment: []string{"of the scenario"},
			Steps: []Step{
				New(To, "tcp", "192.0.2.10:80"),
				{
					Verb: Send, Comment: []string{"of the step"}, List: "few",
					Words: []string{"203.0.113.1:1", "203.0.113.2:2/A"}, Answer: []string{"= a?"},
				},
				New(Send, "203.0.113.3:3", "203.0.113.4:4"),
				{
					Verb: Ipvsadm, Words: []string{"-R"}, Input: []string{"-C", ""},
					Answer: []string{"| out", "!", "= exit 2"},
				},
			},
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"send x\n":                                  "line 1: \"send x\": before it, a line must say scenario NAME",
		"scenario a\nfly\n":                         "line 2: \"fly\" is none of the verbs",
		"scenario a\n= x\n":                         "line 2: the line goes on with nothing",
		"scenario a\nsleep\n":                       "line 2: sleep: 0 words are too few or too many",
		"scenario a\nservers all\n\n":               "line 3: servers: 1 words are too few or too many",
		"scenario a\nsend @few\n":                   "line 2: send: [@few]: want the name of one list",
		"scenario a\nsend 203.0.113.1:1\n= ab\n":    "line 3: 1 packets have 2 outcomes",
		"scenario a\nservers\n\n= a 1 0 0\nsleep 1": "line 4: the line goes on with nothing",
	} {
		if _, err := Parse(text, nil); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}

func TestDiffer(t *testing.T) {
	step := func(answer ...string) *Scenario {
		return &Scenario{Name: "s", Steps: []Step{{Verb: Connections, Answer: answer}}}
	}
	for _, test := range []struct {
		name      string
		want, got []string
		same      bool
	}{
		{"the same", []string{"= a"}, []string{"= a"}, true},
		{"one more", []string{"= a"}, []string{"= a", "= b"}, false},
		{
			"a template within the slack", []string{"= TCP 203.0.113.1:0 192.0.2.10:80 198.51.100.11:80 ASSURED 50"},
			[]string{"= TCP 203.0.113.1:0 192.0.2.10:80 198.51.100.11:80 ASSURED 58"}, true,
		},
		{
			"a template beyond the slack", []string{"= TCP 203.0.113.1:0 192.0.2.10:80 198.51.100.11:80 ASSURED 50"},
			[]string{"= TCP 203.0.113.1:0 192.0.2.10:80 198.51.100.11:80 ASSURED 59"}, false,
		},
		{
			"a template in another state", []string{"= TCP 203.0.113.1:0 192.0.2.10:80 198.51.100.11:80 ASSURED 50"},
			[]string{"= TCP 203.0.113.1:0 192.0.2.10:80 198.51.100.11:80 NONE 50"}, false,
		},
		{
			"a template that ipvsadm lists", []string{"| TCP 01:02  ASSURED     [2001:db8:3::1]:0 [2001:db8:2::10]:80 [2001:db8:1::11]:80"},
			[]string{"| TCP 00:58  ASSURED     [2001:db8:3::1]:0 [2001:db8:2::10]:80 [2001:db8:1::11]:80"}, true,
		},
		{
			"a connection", []string{"= TCP 203.0.113.1:1024 192.0.2.10:80 198.51.100.11:80 SYN_RECV 50"},
			[]string{"= TCP 203.0.113.1:1024 192.0.2.10:80 198.51.100.11:80 SYN_RECV 51"}, false,
		},
	} {
		if err := Differ(step(test.want...), step(test.got...), "kernel", "fairlead"); (err == nil) != test.same {
			t.Errorf("%s: got %v", test.name, err)
		}
	}
}

func TestDifferenceShowsBothAnswers(t *testing.T) {
	want := &Scenario{Name: "s", Steps: []Step{{Verb: Connections, Answer: []string{"= a", "= b", "= d"}}}}
	got := &Scenario{Name: "s", Steps: []Step{{Verb: Connections, Answer: []string{"= a", "= c", "= d"}}}}
	const text = "s: step 1:\nconnections\n          = a\nkernel    = b\nfairlead  = c\n          = d\n"
	if err := Differ(want, got, "kernel", "fairlead"); err == nil || err.Error() != text {
		t.Errorf("got %v, want %s", err, text)
	}
}
