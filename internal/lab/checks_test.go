package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// good is evidence of a lab where everything is as LVS-DR promises.
func good() *evidence {
	service := netip.AddrPortFrom(IPv4.VIP(), HTTPPort)
	hosts := hostsOf(Config{Servers: 2})
	tally := newTally(service, portsOf(hosts, Flat))
	tally.requests, tally.forwarded, tally.repliesAtClient, tally.repliesFromServer = 3000, 3000, 2400, 2400
	tally.claims[Director] = 1
	tally.ttls["64 -> 63"] = 3000
	clients := map[netip.AddrPort]bool{}
	for i := range 600 {
		clients[netip.AddrPortFrom(hosts[0].Address(IPv4), uint16(1024+i))] = true
	}
	return &evidence{
		options: Options{Requests: 600, Scheduler: lvs.WeightedLeastConnection, Weights: []int{4, 2}, Family: IPv4},
		servers: hosts[2:],
		traffic: traffic{sent: 600, answered: 600, byServer: map[string]int{"rs1": 400, "rs2": 200}, service: service, clients: clients},
		tally:   tally,
		counted: 600,
	}
}

// Each check fails on what it is there for, and nothing else does.
func TestChecks(t *testing.T) {
	for _, test := range []struct {
		name  string
		spoil func(*evidence)
		want  []string
	}{
		{"good", func(*evidence) {}, nil},
		{"unanswered", func(e *evidence) { e.traffic.answered-- }, []string{"requests-answered"}},
		{"unequal", func(e *evidence) { e.traffic.byServer["rs1"], e.traffic.byServer["rs2"] = 409, 191 }, []string{"shares-by-weight"}},
		{"reply through the director", func(e *evidence) { e.tally.repliesAtDirector++ }, []string{"replies-bypass-director"}},
		{"reply of someone else", func(e *evidence) { e.tally.repliesAtClient++ }, []string{"replies-bypass-director"}},
		{"changed", func(e *evidence) { e.tally.waiting["a"], e.tally.waiting["b"] = 1, -1 }, []string{"only-macs-changed"}},
		{"lost", func(e *evidence) { e.tally.forwarded-- }, []string{"only-macs-changed"}},
		{"misdirected", func(e *evidence) { e.tally.misdirected++ }, []string{"only-macs-changed"}},
		{"stolen", func(e *evidence) { e.tally.claims["rs1"]++ }, []string{"vip-is-the-directors"}},
		{"unclaimed", func(e *evidence) { clear(e.tally.claims) }, []string{"vip-is-the-directors"}},
		{"misled", func(e *evidence) { e.traffic.misled++ }, []string{"servers-saw-client-and-vip"}},
		{"counted twice", func(e *evidence) { e.counted++ }, []string{"director-counted-connections"}},
		{"not counted", func(e *evidence) { e.counted-- }, []string{"director-counted-connections"}},
		{"capture", func(e *evidence) { e.captureLost = errors.New("frames lost") }, []string{"capture-complete"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := good()
			test.spoil(e)
			got := Demonstration{Report: Report{Checks: e.checks()}}.Failed()
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("failed checks (-want +got):\n%s\n%+v", diff, e.checks())
			}
		})
	}
}

func TestSharesByWeight(t *testing.T) {
	for _, test := range []struct {
		scheduler lvs.Scheduler
		weights   []int
		got       []int
		want      bool
	}{
		{"wrr", []int{4, 2}, []int{400, 200}, true},
		{"wrr", []int{4, 2}, []int{401, 199}, false},
		{"wrr", []int{4, 2}, []int{3, 1}, true},
		{"wrr", []int{4, 2}, []int{4, 0}, false},
		{"wrr", []int{4, 2}, []int{0, 4}, false},
		{"wrr", []int{0, 0}, []int{1, 0}, false},
		{"wlc", []int{4, 2}, []int{408, 192}, false},
		{"wlc", []int{4, 2}, []int{404, 196}, true},
		{"wlc", []int{4, 2}, []int{396, 204}, true},
		{"rr", []int{4, 2}, []int{300, 300}, true},
		{"rr", []int{4, 2}, []int{301, 299}, false},
		{"rr", []int{4, 2}, []int{2, 1}, true},
		{"lc", []int{4, 2, 0}, []int{301, 299, 0}, true},
		{"lc", []int{4, 2, 0}, []int{300, 290, 10}, false},
		{"sed", []int{4, 2}, []int{600, 0}, true},
		{"sed", []int{4, 0}, []int{599, 1}, false},
	} {
		t.Run(fmt.Sprint(test.scheduler, test.weights, test.got), func(t *testing.T) {
			e := good()
			e.options.Scheduler, e.options.Weights = test.scheduler, test.weights
			e.servers = hostsOf(Config{Servers: len(test.weights)})[2:]
			e.traffic.sent = 0
			e.traffic.byServer = map[string]int{}
			for i, got := range test.got {
				e.traffic.byServer[e.servers[i].Name] = got
				e.traffic.sent += got
			}
			if check := e.sharesByWeight(); check.OK != test.want {
				t.Errorf("got %+v", check)
			}
		})
	}
}

func TestHosts(t *testing.T) {
	hosts := hostsOf(Config{Servers: MaxServers})
	seen := map[string]bool{IPv4.VIP().String(): true, IPv6.VIP().String(): true}
	for _, host := range hosts {
		for _, name := range []string{host.Name, host.MAC.String(), host.IPv4.Addr().String(), host.IPv6.Addr().String()} {
			if seen[name] {
				t.Errorf("%s is there twice", name)
			}
			seen[name] = true
		}
	}
	rs2 := hosts[3]
	got := []string{rs2.Name, rs2.MAC.String(), rs2.IPv4.String(), rs2.IPv6.String()}
	if want := []string{"rs2", "02:00:00:00:00:12", "192.0.2.12/24", "2001:db8::12/64"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := fmt.Sprint(IPv4.VIP(), IPv6.VIP()); got != "192.0.2.100 2001:db8::100" {
		t.Errorf("VIPs: %s", got)
	}
}

func TestConfigPath(t *testing.T) {
	for _, test := range []struct {
		config Config
		want   string
	}{
		{Config{}, "/run/fairlead/lab/lab"},
		{Config{Name: "b-2", Directory: "/labs"}, "/labs/b-2"},
		{Config{Name: "../etc"}, ""},
		{Config{Name: "-a"}, ""},
		{Config{Name: "Lab"}, ""},
		{Config{Directory: "labs"}, ""},
	} {
		got, err := test.config.path()
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%+v: got %q, %v", test.config, got, err)
		}
	}
}

func TestMountPoints(t *testing.T) {
	const mountinfo = `22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 22 0:4 net:[4026532229] /run/a\040b/netns/client rw shared:5 - nsfs nsfs rw
`
	if diff := cmp.Diff([]string{"/", "/run/a b/netns/client"}, mountPoints(mountinfo)); diff != "" {
		t.Error(diff)
	}
}
