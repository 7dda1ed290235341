package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/test/oracle/scenario"
)

// A world is the namespace in which the far ends of all cables are.
type world struct {
	namespace netns.NsHandle
	wheel     time.Duration // when the timer wheel was at its start, once
	machines  int
}

func newWorld() (*world, error) {
	w := &world{}
	var err error
	if w.namespace, err = netns.Get(); err != nil {
		return nil, err
	}
	// The far ends shall say nothing of their own.
	for _, which := range []string{"all", "default"} {
		if err := setSysctl("net/ipv6/conf/"+which+"/disable_ipv6", "1"); err != nil {
			return nil, err
		}
	}
	return w, w.findWheel()
}

// play plays a scenario on a director of its own.
func (w *world) play(s *scenario.Scenario) (*scenario.Scenario, error) {
	m, err := w.newMachine()
	if err != nil {
		return nil, fmt.Errorf("make a director: %w", err)
	}
	played, err := scenario.Play(m, s)
	return played, errors.Join(err, m.close())
}

// The timer wheel's ticks are of 10 ms, and every so often it comes round to the
// same place for all timers of up to 2621 s.
const (
	tick  = 10 * time.Millisecond
	round = 4096 * tick
)

func (w *world) findWheel() error {
	text, err := os.ReadFile("/proc/timer_list")
	if err != nil {
		return err
	}
	_, after, _ := strings.Cut(string(text), "\njiffies: ")
	var jiffies uint64
	if _, err := fmt.Sscan(after, &jiffies); err != nil {
		return fmt.Errorf("read jiffies in /proc/timer_list: %w", err)
	}
	now, err := clock()
	w.wheel = (now - time.Duration(jiffies%uint64(round/tick))*tick).Truncate(tick)
	return err
}

// align sleeps until the wheel is at its start, so that timers run out alike
// whatever was played before.
func (w *world) align() error {
	now, err := clock()
	if err != nil {
		return err
	}
	return sleep(round - (now-w.wheel)%round + tick/2)
}

// A machine is a director: a network namespace of its own, with IPVS in it.
type machine struct {
	world     *world
	number    int
	namespace netns.NsHandle
	wires     []*wire
	marked    bool        // cl0 has a filter that marks
	balancing *os.Process // keepalived, if it runs
}

var (
	_ scenario.Machine  = (*machine)(nil)
	_ scenario.Balancer = (*machine)(nil)
)

func (w *world) newMachine() (*machine, error) {
	w.machines++
	m := &machine{world: w, number: w.machines}
	var err error
	if m.namespace, err = netns.New(); err != nil {
		return nil, err
	}
	if err := m.lay(); err != nil {
		return nil, err
	}
	if err := w.align(); err != nil {
		return nil, err
	}
	_, err = m.receive() // what the director had to say of itself
	return m, err
}

func (m *machine) close() error {
	if err := m.stopBalancing(); err != nil {
		return err
	}
	for _, w := range m.wires {
		if err := unix.Close(w.socket); err != nil {
			return err
		}
	}
	if err := netns.Set(m.world.namespace); err != nil {
		return err
	}
	if err := m.namespace.Close(); err != nil {
		return err
	}
	const takenDown = time.Second // by a work queue of the kernel's
	return sleep(takenDown)
}

func (m *machine) Sysctl(name, value string) error { return setSysctl("net/ipv4/vs/"+name, value) }

func (m *machine) Sleep(t time.Duration) error { return sleep(t) }

func (m *machine) Send(frame []byte, on string) (scenario.Sent, error) {
	for _, w := range m.wires {
		if w.on != on {
			continue
		}
		if err := unix.Send(w.socket, frame, 0); err != nil {
			return scenario.Sent{}, fmt.Errorf("send on %s: %w", on, err)
		}
		out, err := m.receive()
		if err != nil || len(out) > 0 {
			return scenario.Sent{Frames: out}, err
		}
		// As a rule all is done when the frame is sent; now and then a thread of
		// the kernel's has a part in it.
		nap(10 * time.Microsecond)
		out, err = m.receive()
		return scenario.Sent{Frames: out}, err
	}
	return scenario.Sent{}, fmt.Errorf("send on %q: no such interface", on)
}

// receive returns the frames that the director has sent.
func (m *machine) receive() (out []scenario.Output, err error) {
	var buffer [1 << 16]byte
	for _, w := range m.wires {
		for {
			n, from, err := unix.Recvfrom(w.socket, buffer[:], 0)
			if err == unix.EAGAIN {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("receive on %s: %w", w.on, err)
			}
			link, ok := from.(*unix.SockaddrLinklayer)
			if isOwn := ok && link.Pkttype == unix.PACKET_OUTGOING; !isOwn && !isNoise(buffer[:n]) {
				out = append(out, scenario.Output{On: w.on, Frame: bytes.Clone(buffer[:n])})
			}
		}
	}
	return out, nil
}

func (m *machine) Services() ([]scenario.Service, error) {
	text, err := os.ReadFile("/proc/thread-self/net/ip_vs")
	if err != nil {
		return nil, err
	}
	const headings = 3
	var services []scenario.Service
	for i, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		fields := strings.Fields(line)
		switch {
		case i < headings:
		case fields[0] == "->":
			var rs scenario.Server
			address, err := parseEndpoint(fields[1])
			if err == nil {
				_, err = fmt.Sscan(strings.Join(fields[3:6], " "), &rs.Weight, &rs.Active, &rs.Inactive)
			}
			if err != nil {
				return nil, fmt.Errorf("read real server %q: %w", line, err)
			}
			rs.Address = address.Addr()
			last := &services[len(services)-1]
			last.Servers = append(last.Servers, rs)
		default:
			name, err := serviceName(fields)
			if err != nil {
				return nil, fmt.Errorf("read service %q: %w", line, err)
			}
			services = append(services, scenario.Service{Name: name})
		}
	}
	return services, nil
}

// serviceName returns a service's name as fairlead writes it. The kernel's table
// does not tell a mark's family.
func serviceName(fields []string) (string, error) {
	if fields[0] == "FWM" {
		var mark uint32
		_, err := fmt.Sscanf(fields[1], "%X", &mark)
		return fmt.Sprintf("FWM %d", mark), err
	}
	address, err := parseEndpoint(fields[1])
	return fields[0] + " " + address.String(), err
}

// parseEndpoint reads an address and a port as they are in /proc/net/ip_vs.
func parseEndpoint(text string) (netip.AddrPort, error) {
	colon := strings.LastIndex(text, ":")
	if colon < 0 {
		return netip.AddrPort{}, fmt.Errorf("endpoint %q has no port", text)
	}
	return parseAddrPort(text[:colon], text[colon+1:])
}

// parseAddrPort reads an address, in hexadecimal if it is one of IPv4, and a port
// in hexadecimal.
func parseAddrPort(address, port string) (netip.AddrPort, error) {
	var number uint16
	if _, err := fmt.Sscanf(port, "%x", &number); err != nil {
		return netip.AddrPort{}, fmt.Errorf("port %q: %w", port, err)
	}
	if strings.Contains(address, ":") {
		addr, err := netip.ParseAddr(strings.Trim(address, "[]"))
		return netip.AddrPortFrom(addr, number), err
	}
	var ip []byte
	if _, err := fmt.Sscanf(address, "%x", &ip); err != nil {
		return netip.AddrPort{}, fmt.Errorf("address %q: %w", address, err)
	}
	addr, ok := netip.AddrFromSlice(ip)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("address %q has %d bytes", address, len(ip))
	}
	return netip.AddrPortFrom(addr, number), nil
}

func (m *machine) Connections() ([]scenario.Connection, error) {
	text, err := os.ReadFile("/proc/thread-self/net/ip_vs_conn")
	if err != nil {
		return nil, err
	}
	var table []scenario.Connection
	for i, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		if i == 0 {
			continue
		}
		c, err := parseConnection(strings.Fields(line))
		if err != nil {
			return nil, fmt.Errorf("read connection %q: %w", line, err)
		}
		table = append(table, c)
	}
	return table, nil
}

func parseConnection(fields []string) (c scenario.Connection, err error) {
	const wanted = 9
	if len(fields) < wanted {
		return c, fmt.Errorf("%d fields", len(fields))
	}
	c.Protocol, c.State = fields[0], fields[7]
	c.Engine = strings.Join(fields[wanted:], " ")
	for i, end := range []*netip.AddrPort{&c.Client, &c.Virtual, &c.Server} {
		if *end, err = parseAddrPort(fields[1+2*i], fields[2+2*i]); err != nil {
			return c, err
		}
	}
	var seconds int
	_, err = fmt.Sscan(fields[8], &seconds)
	c.Expires = time.Duration(seconds) * time.Second
	return c, err
}
