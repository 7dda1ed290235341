package doctor

import (
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"testing"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// inNamespace runs the commands and then f in a network namespace of its own.
func inNamespace(t *testing.T, commands string, f func()) {
	t.Helper()
	err := testhost.NewNamespace(t).Do(func() error {
		out, err := exec.CommandContext(t.Context(), "sh", "-ec", commands).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		f()
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// twoInterfaces has two interfaces on one segment, as eth0 and eth1 of a director.
const twoInterfaces = `
	ip link add eth0 type veth peer name p0
	ip link add eth1 type veth peer name p1
	for dev in lo p0 p1 eth0 eth1; do ip link set $dev up; done
	sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0 net.ipv4.conf.eth1.rp_filter=0
`

// visitDirector examines the director's own part, attached to eth0 in that mode.
func visitDirector(t *testing.T, mode string, vip, server string) []Finding {
	t.Helper()
	services := []lvs.ServiceStatus{{
		Service: lvs.Service{ServiceKey: lvs.ServiceKey{Protocol: lvs.TCP, Address: netip.MustParseAddr(vip), Port: 80}},
		Servers: []lvs.RealServerStatus{{RealServer: lvs.RealServer{
			RealServerKey: lvs.RealServerKey{Address: netip.MustParseAddr(server), Port: 80}, Method: lvs.DirectRouting}}},
	}}
	attached := []api.Interface{{Name: "eth0", Mode: mode}}
	e := &examination{segments: map[int]*segment{}, services: services, names: newDirectory()}
	if err := e.open(attached, services); err != nil {
		t.Error(err)
		return nil
	}
	defer e.close()
	if err := e.examineDevices(attached); err != nil {
		t.Error(err)
	}
	e.findSources()
	return e.findings
}

// What is wrong on the director itself is found; its command mends it.
func TestDirectorItself(t *testing.T) {
	const well = "ip address add 192.0.2.10/24 dev eth0; ip -6 address add 2001:db8::10/64 dev eth0 nodad; " +
		"ip address add 192.0.2.100/32 dev eth0; ip -6 address add 2001:db8::100/128 dev eth0 nodad preferred_lft 0;"
	for _, test := range []struct {
		name, commands string
		mode           string
		server, vip    string
		want           []string
		mends          bool // by its command, as it stands
	}{
		{"healthy", well, "xdp", "192.0.2.11", "192.0.2.100", nil, false},
		{"healthy, IPv6", well, "xdp", "2001:db8::11", "2001:db8::100", nil, false},
		{"GRO after native XDP", well + "ethtool -K eth0 gro on", "xdp", "192.0.2.11", "192.0.2.100", nil, false},
		{"generic mode", well + "ethtool -K eth0 gro off", generic, "192.0.2.11", "192.0.2.100", []string{GenericXDP}, false},
		{"generic mode after GRO", well + "ethtool -K eth0 gro on", generic, "192.0.2.11", "192.0.2.100", []string{GenericXDP, Aggregation}, false},
		{"strict filter, one way", well + "sysctl -qw net.ipv4.conf.eth0.rp_filter=1", "xdp", "192.0.2.11", "192.0.2.100", nil, false},
		{"strict filter, another way back", well + "sysctl -qw net.ipv4.conf.eth0.rp_filter=1; ip address add 192.0.2.9/32 dev eth1; " +
			"ip route replace 192.0.2.0/24 dev eth1", "xdp", "192.0.2.11", "192.0.2.100", []string{RPFilter}, true},
		{"strict for all", well + "sysctl -qw net.ipv4.conf.all.rp_filter=1; ip route replace 192.0.2.0/24 dev eth1",
			"xdp", "2001:db8::11", "2001:db8::100", []string{RPFilter}, true},
		{"VIP as source", "ip address add 192.0.2.100/24 dev eth0; ip address add 192.0.2.10/24 dev eth0",
			"xdp", "192.0.2.11", "192.0.2.100", []string{VIPSource}, true},
		{"VIP as source, IPv6", "ip -6 address add 2001:db8::100/64 dev eth0 nodad; ip -6 address add 2001:db8::8:10/64 dev eth0 nodad; " +
			"ip -6 address change 2001:db8::8:10/64 dev eth0 preferred_lft 0",
			"xdp", "2001:db8::11", "2001:db8::100", []string{VIPSource}, false},
		{"no other source", "ip address add 192.0.2.100/24 dev eth0", "xdp", "192.0.2.11", "192.0.2.100", []string{VIPSource}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			inNamespace(t, twoInterfaces+test.commands, func() {
				findings := visitDirector(t, test.mode, test.vip, test.server)
				var checks []string
				for _, f := range findings {
					checks = append(checks, f.Check)
					if f.What == "" || f.Why == "" || len(f.Mend) == 0 || f.Host.Role != Director {
						t.Errorf("%+v", f)
					}
				}
				if !slices.Equal(checks, test.want) {
					t.Errorf("found %v, want %v: %+v", checks, test.want, findings)
				}
				if !test.mends || len(findings) == 0 {
					return
				}
				command := findings[0].Mend[0].Command
				if out, err := exec.CommandContext(t.Context(), "sh", "-ec", command).CombinedOutput(); err != nil {
					t.Errorf("%s: %v: %s", command, err, out)
				}
				if left := visitDirector(t, test.mode, test.vip, test.server); len(left) > 0 {
					t.Errorf("after %s: %+v", command, left)
				}
			})
		})
	}
}
