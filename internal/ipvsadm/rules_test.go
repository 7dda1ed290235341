package ipvsadm

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fairlead-lb/fairlead/internal/config"
	"github.com/fairlead-lb/fairlead/internal/director"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// judge is a director's.
var judge = Judge{Service: director.CheckService, Server: director.CheckServer}

func TestReadRules(t *testing.T) {
	state, refused := ReadRules(t.Context(), judge, `-A -t 192.0.2.100:80 -s wlc -p 300 -M 255.255.255.0
-a -t 192.0.2.100:80 -r 198.51.100.12:80 -g -w 2 -x 10 -y 5
-a -t 192.0.2.100:80 -r 198.51.100.11:80 -i -w 1 --tun-type gue --tun-port 6080

# by hand
-A -f 7 -s sh -b sh-port
-a -f 7 -r 198.51.100.11:0 -m
--set 3600 0 60
-a -t 192.0.2.101:80 -r 198.51.100.11:80
-A -t 192.0.2.100:80
-L
nonsense
-Ln
-h
--version
`)
	server := func(last byte, port uint16) lvs.RealServerKey {
		return lvs.RealServerKey{Address: netip.AddrFrom4([4]byte{198, 51, 100, last}), Port: port}
	}
	want := lvs.State{
		Sysctls: []lvs.SysctlSetting{{Name: "timeout_established", Value: 3600}, {Name: "timeout_udp", Value: 60}},
		Services: []lvs.ServiceState{
			{
				Service: lvs.Service{
					ServiceKey: lvs.ServiceKey{Protocol: lvs.TCP, Address: netip.MustParseAddr("192.0.2.100"), Port: 80},
					Scheduler:  "wlc", PersistenceTimeout: 5 * time.Minute, PersistenceMask: 0xffffff00,
				},
				Servers: []lvs.RealServer{
					{RealServerKey: server(12, 80), Method: lvs.DirectRouting, Weight: 2, UpperThreshold: 10, LowerThreshold: 5},
					{RealServerKey: server(11, 80), Method: lvs.Tunnelling, Weight: 1, Tunnel: lvs.Tunnel{Type: lvs.GUE, Port: 6080}},
				},
			},
			{
				Service: lvs.Service{ServiceKey: lvs.MarkKey(7, false), Scheduler: "sh", SchedulerFlags: lvs.SHPort, PersistenceMask: 0xffffffff},
				Servers: []lvs.RealServer{{RealServerKey: server(11, 0), Method: lvs.Masquerading, Weight: 1}},
			},
		},
	}
	if diff := cmp.Diff(want, state, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	var lines []string
	for _, r := range refused {
		if r.Reason == "" {
			t.Errorf("%+v", r)
		}
		lines = append(lines, fmt.Sprintf("%d %s", r.Line, r.Text))
	}
	if diff := cmp.Diff([]string{"9 -a -t 192.0.2.101:80 -r 198.51.100.11:80", "10 -A -t 192.0.2.100:80", "11 -L", "12 nonsense", "13 -Ln", "14 -h", "15 --version"}, lines); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// FuzzReadRules checks that each line of rules is carried out or refused with its place and a
// reason, and that what they lead to can be written as a configuration, and read.
func FuzzReadRules(f *testing.F) {
	for _, c := range mustVectors(f) {
		for _, step := range c.Steps {
			if step.Run != nil {
				f.Add(strings.Join(step.Run.Args, " ") + "\n" + step.Run.Stdin)
			}
		}
	}
	f.Add("-A -f 7 -6 -s mh -b mh-port\n-a -f 7 -6 -r [2001:db8::11]:0 -i --tun-type gre\n-h\n-Ln\n-Z\n-C\n")
	f.Add("-A -t [2001:db8::10]:80\n-a -t [2001:db8::10]:80 -r [2001:db8::11]:0 -m")
	f.Fuzz(func(t *testing.T, rules string) { checkRules(t, rules) })
}

// TestRandomRules does as FuzzReadRules, with random rules.
func TestRandomRules(t *testing.T) {
	random := rand.New(rand.NewPCG(randomSeed(t), 1))
	for range 2000 {
		var rules strings.Builder
		for range random.IntN(8) {
			rules.WriteString(randomRestoreLine(random))
			rules.WriteByte('\n')
		}
		checkRules(t, rules.String())
	}
}

func checkRules(t *testing.T, rules string) {
	t.Helper()
	state, refused := readRules(t.Context(), judge, testNames{}, rules)
	lines, last := strings.Split(rules, "\n"), 0
	for _, r := range refused {
		if r.Line <= last || r.Line > len(lines) || strings.TrimSpace(lines[r.Line-1]) != r.Text || r.Reason == "" {
			t.Errorf("%q: refused %+v after line %d", rules, r, last)
			return
		}
		last = r.Line
	}
	written := config.Write(lvs.Configuration{State: state})
	again, err := config.Parse("imported", []byte(written))
	if err != nil {
		t.Errorf("%q: %v\n%s", rules, err, written)
		return
	}
	for i, s := range state.Services {
		if s.PersistenceTimeout == 0 {
			state.Services[i].PersistenceEngine = "" // which does nothing there
		}
	}
	if diff := cmp.Diff(state, again.State, cmpopts.EquateEmpty(),
		cmpopts.SortSlices(func(a, b lvs.ServiceState) bool { return a.Text() < b.Text() }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("%q: -imported +written and read:\n%s", rules, diff)
	}
}
