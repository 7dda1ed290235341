package oracle

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// XDP actions (linux/bpf.h).
const (
	xdpDrop     = 1
	xdpPass     = 2
	xdpRedirect = 4
)

// What the recordings call what became of a packet; real servers are letters.
const (
	nothing   = '.'
	icmpError = '!'
	tcpAnswer = '?'
	otherwise = '*'
)

// play carries out the steps of a plan and returns the first difference as an
// error, with its step.
func (d *director) play(p *plan) error {
	if err := d.reset(); err != nil {
		return err
	}
	for i := range p.steps {
		if err := d.playStep(p, &p.steps[i]); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return nil
}

func (d *director) playStep(p *plan, st *step) error {
	d.hold()
	for _, command := range st.Do {
		if err := d.ipvsadm(commandLine(command)...); err != nil {
			return err
		}
	}
	switch {
	case st.Set != nil:
		return d.ipvsadm(append([]string{"--set"}, st.timeouts()...)...)
	case st.Sleep != 0:
		return d.sleep(st.sleeps())
	case st.Pkts != nil:
		return d.comparePackets(p.recording, st)
	case st.Dests != nil:
		got, err := d.dests()
		return differ("real servers", got, *st.Dests, err)
	case st.Conns != nil:
		return differ("connections", d.conns(), *st.Conns, nil)
	case st.States != nil:
		got, err := d.walk(p.recording, st.States)
		return differ("states", got, st.States, err)
	case st.Frame != nil:
		return d.compareFrame(st.Frame, p.frameWaits(st.Frame) != "")
	case st.Note != "":
		return d.followNote(st.Note)
	}
	return nil
}

// differ tells the first line in which what was read is not what was recorded.
func differ(what string, got, want []string, err error) error {
	if err != nil {
		return err
	}
	for i := range max(len(got), len(want)) {
		line := func(lines []string) string {
			if i < len(lines) {
				return fmt.Sprintf("%q", lines[i])
			}
			return "none"
		}
		if line(got) != line(want) {
			return fmt.Errorf("%s: line %d is %s, recorded %s; all of them:\n%s\nrecorded:\n%s",
				what, i, line(got), line(want), strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	return nil
}

// run sends one frame through the program.
func (d *director) run(frame []byte, on string) (action uint32, out []byte, err error) {
	d.hold()
	return d.Run(frame, d.interfaces[on])
}

func (d *director) comparePackets(r *recording, st *step) error {
	got := make([]byte, 0, len(st.Pkts))
	for _, text := range st.Pkts {
		outcome, err := d.sendPacket(r, text)
		if err != nil {
			return fmt.Errorf("packet %s: %w", text, err)
		}
		got = append(got, outcome)
	}
	for i := range got {
		if got[i] != st.Got[i] {
			return fmt.Errorf("packet %d, %q: became %c, recorded %c; all of them:\n%s\nrecorded:\n%s",
				i, st.Pkts[i], got[i], st.Got[i], got, st.Got)
		}
	}
	return nil
}

// sendPacket sends a packet and returns what became of it.
func (d *director) sendPacket(r *recording, text string) (byte, error) {
	p, err := r.readPacket(text)
	if err != nil {
		return 0, err
	}
	return d.send(p)
}

func (d *director) send(p packet) (byte, error) {
	frame, err := p.frame()
	if err != nil {
		return 0, err
	}
	action, out, err := d.run(frame, "cl")
	if err != nil {
		return 0, err
	}
	switch action {
	case xdpDrop:
		return nothing, nil
	case xdpPass:
		return hostsOutcome(frame, out), nil
	case xdpRedirect:
		return outcome(out), nil
	}
	return otherwise, nil
}

// hostsOutcome returns what the recorded director's own stack makes of a packet,
// whose VIP is local, with nobody listening.
func hostsOutcome(in, passed []byte) byte {
	if !bytes.Equal(in, passed) {
		return otherwise
	}
	switch d := decode(in); {
	case d.tcp != nil && d.tcp.RST:
		return nothing
	case d.tcp != nil:
		return tcpAnswer
	case d.udp != nil:
		return icmpError
	}
	return otherwise
}

// outcome says where a frame that goes out goes.
func outcome(frame []byte) byte {
	d := decode(frame)
	last := len(d.destination) - 1
	n := int(d.destination[last])
	d.destination[last] = rs0MAC[last]
	switch {
	case d.source == rs0MAC && d.destination == rs0MAC && n >= firstServer && n < firstServer+servers:
		return byte('a' + n - firstServer)
	case d.source == cl0MAC && lvs.MAC(frame[:6]) == clientMAC && d.unreachablePort:
		return icmpError
	}
	return otherwise
}

// dests returns the real servers as they are recorded.
func (d *director) dests() ([]string, error) {
	services, err := d.Plane.Services()
	if err != nil {
		return nil, err
	}
	slices.SortFunc(services, func(a, b lvs.ServiceStatus) int {
		return cmp.Or(cmp.Compare(a.Protocol.String(), b.Protocol.String()),
			a.Address.Compare(b.Address), cmp.Compare(a.Port, b.Port))
	})
	lines := []string{}
	for _, svc := range services {
		if len(services) > 1 {
			lines = append(lines, "@"+svc.ServiceKey.String())
		}
		for _, rs := range svc.Servers {
			n, err := serverNumber(rs.Address)
			if err != nil {
				return nil, err
			}
			lines = append(lines, fmt.Sprintf("%c %d %d %d", 'a'+n-firstServer, rs.Weight, rs.Active, rs.Inactive))
		}
	}
	return lines, nil
}

// conns returns the connection table as it is recorded.
func (d *director) conns() []string {
	table := slices.SortedFunc(d.Plane.Connections(), func(a, b lvs.Connection) int {
		return cmp.Or(cmp.Compare(a.Protocol.String(), b.Protocol.String()),
			a.Client.Compare(b.Client), a.Virtual.Compare(b.Virtual), a.Server.Compare(b.Server))
	})
	lines := []string{}
	for _, c := range table {
		lines = append(lines, fmt.Sprintf("%s %s %s %s %s", c.Protocol, c.Client, c.Virtual, c.Server, stateAndSeconds(c)))
	}
	return lines
}

// clockError is how far the clock may be off, to both sides: it counts ticks, and
// goes on while a packet is on its way. The recordings look at multiples of half
// a second.
const clockError = 250 * time.Millisecond

// stateAndSeconds rounds the seconds down.
func stateAndSeconds(c lvs.Connection) string {
	return fmt.Sprintf("%s %d", c.State, (c.Expires+clockError)/time.Second)
}

// walk sends each sequence as a connection of its own, and returns what state it
// is in half a second later.
func (d *director) walk(r *recording, recorded []string) ([]string, error) {
	vip, err := netip.ParseAddrPort(r.VIP)
	if err != nil {
		return nil, err
	}
	clientOf := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(1 + i%250)}), uint16(2000+i/250))
	}
	for i, line := range recorded {
		sequence, _, _ := strings.Cut(line, " ")
		for flags := range strings.SplitSeq(sequence, ",") {
			if strings.HasPrefix(flags, "<") {
				return nil, errors.New("packets from a real server never cross the director in direct routing")
			}
			if _, err := d.send(packet{protocol: r.Proto, client: clientOf(i), vip: vip, flags: flags}); err != nil {
				return nil, err
			}
		}
	}
	if err := d.sleep(500 * time.Millisecond); err != nil {
		return nil, err
	}
	states := map[netip.AddrPort]string{}
	for c := range d.Plane.Connections() {
		states[c.Client] = stateAndSeconds(c)
	}
	var lines []string
	for i, line := range recorded {
		sequence, _, _ := strings.Cut(line, " ")
		lines = append(lines, sequence+" "+cmp.Or(states[clientOf(i)], "-"))
	}
	return lines, nil
}

// followNote does what a note says was done.
func (d *director) followNote(note string) error {
	var mtu int
	if _, err := fmt.Sscanf(note, "MTU of rs0 set to %d", &mtu); err != nil {
		return fmt.Errorf("note %q: don't know what to do: %w", note, err)
	}
	return d.setMTU(mtu)
}
