package oracle

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-lb/fairlead/internal/dataplane"
	"github.com/fairlead-lb/fairlead/internal/ipvsadm"
	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/test/oracle/scenario"
)

// A machine is a director that scenarios are played on.
type machine struct{ *director }

var _ scenario.Machine = machine{}

// Ipvsadm runs fairlead's ipvsadm.
func (m machine) Ipvsadm(args []string, stdin string) (scenario.CommandResult, error) {
	m.hold()
	connect := func(context.Context) (ipvsadm.Director, error) { return m.director, nil }
	var stdout, stderr strings.Builder
	status := ipvsadm.Run(context.Background(), connect, args, strings.NewReader(stdin), &stdout, &stderr)
	return scenario.CommandResult{Stdout: stdout.String(), Stderr: stderr.String(), Status: status}, nil
}

// Sysctl sets one of the director's.
func (m machine) Sysctl(name, value string) error {
	change, err := lvs.ParseSysctlChange(name, value)
	if err != nil {
		return err
	}
	return m.SetSysctls(lvs.ServiceKey{}, []lvs.SysctlChange{change})
}

// clients are all that there are.
var clients = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8:3::/48")}

// SetMark marks what comes from clients.
func (m machine) SetMark(mark uint32) error {
	if mark == 0 {
		return m.SetMarkRules(nil)
	}
	var rules []lvs.MarkRule
	for _, source := range clients {
		rules = append(rules, lvs.MarkRule{Mark: mark, Source: source, SourcePorts: lvs.AllPorts, DestinationPorts: lvs.AllPorts})
	}
	return m.SetMarkRules(rules)
}

// SetMTU changes the MTU of an interface, and of the way to the real servers.
func (m machine) SetMTU(on string, mtu int) error {
	link, err := netlink.LinkByName(on + "0")
	if err == nil {
		err = netlink.LinkSetMTU(link, mtu)
	}
	if err == nil {
		err = m.RefreshInterfaces()
	}
	if err != nil {
		return fmt.Errorf("set MTU of %s: %w", on, err)
	}
	if on != "rs" {
		return nil
	}
	m.mtu = mtu
	services, err := m.Plane.Services()
	if err != nil {
		return err
	}
	for _, svc := range services {
		for _, rs := range svc.Servers {
			if err := m.setNextHop(rs.Address); err != nil {
				return err
			}
		}
	}
	return nil
}

// Sleep lets time pass, and the sweep that is due then.
func (m machine) Sleep(t time.Duration) error {
	m.clock += t
	var err error
	m.onTime(func() { _, err = m.Sweep() })
	if err != nil {
		return err
	}
	return m.estimate(t)
}

// XDP actions (linux/bpf.h).
const (
	xdpDrop     = 1
	xdpPass     = 2
	xdpTX       = 3
	xdpRedirect = 4
)

// Send runs the director's program on a frame.
func (m machine) Send(frame []byte, on string) (scenario.Sent, error) {
	var action uint32
	var out []byte
	was, err := m.givenToFragment()
	if err != nil {
		return scenario.Sent{}, err
	}
	m.onTime(func() { action, out, err = m.Run(frame, m.interfaces[on]) })
	if err != nil {
		return scenario.Sent{}, err
	}
	switch action {
	case xdpDrop:
		is, err := m.givenToFragment()
		if err != nil || is == was {
			return scenario.Sent{}, err
		}
		return sentInFragments(<-m.oversized)
	case xdpPass:
		return scenario.Sent{Passed: out}, nil
	case xdpTX, xdpRedirect:
		return scenario.Sent{Frames: []scenario.Output{{On: leaves(out), Frame: out}}}, nil
	}
	return scenario.Sent{}, fmt.Errorf("run the program: XDP action %d", action)
}

// givenToFragment returns how many packets were given to the director for that.
func (m machine) givenToFragment() (uint64, error) {
	verdicts, err := m.Verdicts()
	at := slices.IndexFunc(verdicts, func(v dataplane.VerdictCount) bool { return v.Name == "forward-in-fragments" })
	if err != nil || at < 0 {
		return 0, err
	}
	return verdicts[at].Packets, nil
}

func sentInFragments(o dataplane.OversizedPacket) (scenario.Sent, error) {
	var sent scenario.Sent
	frames, err := o.Fragments()
	for _, frame := range frames {
		sent.Frames = append(sent.Frames, scenario.Output{On: leaves(frame), Frame: frame})
	}
	return sent, err
}

// leaves returns the interface that a frame goes out of, by its source.
func leaves(frame []byte) string {
	if lvs.MAC(frame[6:12]) == scenario.NearMAC("rs") {
		return "rs"
	}
	return "cl"
}

// Services returns the services as a scenario reads them.
func (m machine) Services() ([]scenario.Service, error) {
	services, err := m.Plane.Services()
	if err != nil {
		return nil, err
	}
	var all []scenario.Service
	for _, svc := range services {
		// The kernel's table does not tell a mark's family.
		read := scenario.Service{Name: strings.TrimSuffix(svc.ServiceKey.String(), " IPv6")}
		for _, rs := range svc.Servers {
			read.Servers = append(read.Servers, scenario.Server{
				Address: rs.Address, Weight: rs.Weight, Active: rs.Active, Inactive: rs.Inactive,
			})
		}
		all = append(all, read)
	}
	return all, nil
}

// Connections returns the connection table as a scenario reads it.
func (m machine) Connections() ([]scenario.Connection, error) {
	var all []scenario.Connection
	for _, c := range m.connections() {
		all = append(all, scenario.Connection{
			Protocol: c.Protocol.String(),
			Client:   c.Client, Virtual: c.Virtual, Server: c.Server,
			State: c.State.String(), Expires: c.Expires + clockError,
			Engine: strings.TrimSpace(c.PersistenceEngine + " " + c.PersistenceData),
		})
	}
	return all, nil
}
