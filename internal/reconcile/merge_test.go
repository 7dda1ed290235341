package reconcile

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// What holds of every merge, whatever the three states are.
func TestMergeOfAnyStates(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	g := rand.New(rand.NewPCG(seed, 0))
	unique := func(s lvs.State) lvs.State {
		if len(s.Marks) == 2 && s.Marks[0] == s.Marks[1] {
			s.Marks = s.Marks[:1]
		}
		return s
	}
	equal := func(what string, want, got lvs.State) {
		t.Helper()
		if diff := cmp.Diff(canonical(want), canonical(got), compareAddresses); diff != "" {
			t.Fatalf("seed %d, %s, -want +got:\n%s", seed, what, diff)
		}
	}
	for range 2000 {
		base, have, want := unique(randomState(g)), unique(randomState(g)), unique(randomState(g))
		equal("nothing was changed by hand", want, Merge(base, base, want))
		equal("the configuration is as it was", have, sortedAs(have, Merge(base, have, base)))
		equal("there was nothing", want, Merge(lvs.State{}, lvs.State{}, want))
		merged := Merge(base, have, want)
		equal("the same again", merged, Merge(want, merged, want))
	}
}

// sortedAs brings the servers and rules of s into the order of model: a configuration
// says in which order they stand.
func sortedAs(model, s lvs.State) lvs.State {
	for i, service := range s.Services {
		for _, m := range model.Services {
			if m.ServiceKey == service.ServiceKey && len(Plan(lvs.State{Services: []lvs.ServiceState{service}},
				lvs.State{Services: []lvs.ServiceState{m}})) <= 1 && len(m.Servers) == len(service.Servers) {
				s.Services[i].Servers = m.Servers
			}
		}
	}
	if len(s.Marks) == len(model.Marks) {
		s.Marks = model.Marks
	}
	return s
}

func TestMerge(t *testing.T) {
	// A state in a line: "service:scheduler server*weight server*weight; ..."
	read := func(text string) (state lvs.State) {
		for _, part := range strings.Split(text, ";") {
			words := strings.Fields(part)
			if len(words) == 0 {
				continue
			}
			var last int
			var scheduler string
			fmt.Sscanf(words[0], "%d:%s", &last, &scheduler)
			s := lvs.ServiceState{}
			s.ServiceKey = lvs.ServiceKey{Protocol: lvs.TCP, Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(last)}), Port: 80}
			s.Scheduler = lvs.Scheduler(scheduler)
			for _, word := range words[1:] {
				var weight uint32
				fmt.Sscanf(word, "%d*%d", &last, &weight)
				s.Servers = append(s.Servers, lvs.RealServer{Weight: weight,
					RealServerKey: lvs.RealServerKey{Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(last)}), Port: 80}})
			}
			state.Services = append(state.Services, s)
		}
		return state
	}
	write := func(state lvs.State) string {
		var services []string
		for _, s := range state.Services {
			words := []string{fmt.Sprintf("%d:%s", s.Address.As4()[3], s.Scheduler)}
			for _, r := range s.Servers {
				words = append(words, fmt.Sprintf("%d*%d", r.Address.As4()[3], r.Weight))
			}
			services = append(services, strings.Join(words, " "))
		}
		return strings.Join(services, "; ")
	}
	for _, test := range []struct{ name, base, have, want, merged string }{
		{"a weight by hand stays", "100:rr 1*1 2*1", "100:rr 1*0 2*1", "100:rr 1*1 2*5", "100:rr 1*0 2*5"},
		{"a weight in both: the configuration's", "100:rr 1*1", "100:rr 1*0", "100:rr 1*7", "100:rr 1*7"},
		{"a server by hand stays where it is", "100:rr 1*1 2*1", "100:rr 1*1 9*1 2*1", "100:rr 1*1 2*1 3*1", "100:rr 1*1 9*1 2*1 3*1"},
		{"a server by hand at the end", "100:rr 1*1", "100:rr 1*1 9*1 8*1", "100:rr 2*1 1*1", "100:rr 2*1 1*1 9*1 8*1"},
		{"a server deleted by hand stays away", "100:rr 1*1 2*1", "100:rr 1*1", "100:rr 1*1 2*1 3*1", "100:rr 1*1 3*1"},
		{"a server deleted by hand, and edited", "100:rr 1*1 2*1", "100:rr 1*1", "100:rr 1*1 2*2", "100:rr 1*1 2*2"},
		{"a server that is configured no more", "100:rr 1*1 2*1", "100:rr 1*1 2*0 9*1", "100:rr 1*1", "100:rr 1*1 9*1"},
		{"a server by hand that is configured now", "100:rr 1*1", "100:rr 9*3 1*1", "100:rr 1*1 9*1", "100:rr 1*1 9*1"},
		{"a service by hand stays", "100:rr 1*1", "99:rr 5*5; 100:rr 1*1", "100:wlc 1*1", "99:rr 5*5; 100:wlc 1*1"},
		{"a service deleted by hand stays away", "100:rr 1*1; 101:rr", "101:rr", "100:rr 1*1; 101:wlc", "101:wlc"},
		{"a service that is configured no more", "100:rr 1*1; 101:rr", "100:rr 1*1 9*1; 101:rr", "101:rr", "101:rr"},
		{"a scheduler by hand stays", "100:rr 1*1", "100:sh 1*1", "100:rr 1*2", "100:sh 1*2"},
		{"order is the configuration's", "100:rr 1*1 2*1", "100:rr 2*1 1*1", "100:rr 1*1 2*1", "100:rr 1*1 2*1"},
	} {
		if got := write(Merge(read(test.base), read(test.have), read(test.want))); got != test.merged {
			t.Errorf("%s: got %s, want %s", test.name, got, test.merged)
		}
	}
}

func TestStepsInDetail(t *testing.T) {
	key := lvs.ServiceKey{Protocol: lvs.TCP, Address: netip.MustParseAddr("192.0.2.100"), Port: 80}
	server := lvs.RealServer{RealServerKey: lvs.RealServerKey{Address: netip.MustParseAddr("192.0.2.11"), Port: 80}, Method: lvs.DirectRouting, Weight: 1}
	other := server
	other.Weight, other.Method, other.Tunnel = 2, lvs.Tunnelling, lvs.Tunnel{Type: lvs.GUE, Port: 6080}
	have := lvs.State{Services: []lvs.ServiceState{{
		Service: lvs.Service{ServiceKey: key, Scheduler: "sh", SchedulerFlags: lvs.SHPort}, Servers: []lvs.RealServer{server}}}}
	want := lvs.State{
		Marks: []lvs.MarkRule{{Mark: 1}},
		Services: []lvs.ServiceState{{
			Service: lvs.Service{ServiceKey: key, Scheduler: "wlc", PersistenceTimeout: time.Minute}, Servers: []lvs.RealServer{other}}},
	}
	var got []string
	for _, step := range Plan(have, want) {
		got = append(got, fmt.Sprintf("%s %s: %s", step.Sign(), step, step.Detail()))
	}
	if diff := cmp.Diff([]string{
		"~ edit service TCP 192.0.2.100:80: scheduler sh -> wlc, flags sh-port -> none, persistence 0s -> 1m0s",
		"~ edit real server 192.0.2.11:80 of TCP 192.0.2.100:80: method Route -> Tunnel, weight 1 -> 2",
		"~ set 1 mark rules, of 0: 1 new, 0 gone",
	}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
