package dataplane

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A Probe is one conversation of a check: its packets go to a virtual address by one
// real server's next hop, and what comes back finds the check again.
type Probe struct {
	// Protocol is TCP, UDP, or ICMP of the addresses' family.
	Protocol lvs.Protocol
	// Source is an address of the director that the real server answers to. Its port
	// is, for ICMP, the identifier of the echo requests.
	Source netip.AddrPort
	// Destination is the virtual address; for ICMP with port 0.
	Destination netip.AddrPort
	// Server is reached by its forwarding method, direct routing or tunnelling, and
	// NextHop.
	Server  lvs.RealServer
	NextHop lvs.NextHop
}

// Probes carry probes out of a network namespace and back. They are apart from what
// clients' packets meet, end with the process that made them, and are safe for
// concurrent use.
type Probes struct {
	objects struct {
		Out    *ebpf.Program `ebpf:"probe_out"`
		In     *ebpf.Program `ebpf:"probe_in"`
		Probes *ebpf.Map     `ebpf:"probes"`
		// Apart from the plane's maps of these names.
		Servers *ebpf.Map `ebpf:"real_servers"`
		Tunnels *ebpf.Map `ebpf:"tunnels"`
	}
	out link.Link // at the namespace

	mu     sync.Mutex
	closed bool
	taps   map[int]tap
	ways   map[probed]probeWay
}

// A probed real server is one that probes have been sent to.
type probed struct {
	address netip.Addr
	method  lvs.ForwardingMethod
	tunnel  lvs.Tunnel
}

// A probeWay is where its packets went last, and its index.
type probeWay struct {
	index uint32
	hop   lvs.NextHop
}

// A tap is a program at an interface.
type tap interface{ Close() error }

// OpenProbes begins to carry what comes out of a namespace: outside is the index of the
// interface that stands for it here, inside the MAC address of the one in it.
func OpenProbes(outside int, inside lvs.MAC) (*Probes, error) {
	spec, err := loadProbe()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(spec.Variables["outside_ifindex"].Set(uint32(outside)), spec.Variables["inside_mac"].Set(inside)); err != nil {
		return nil, fmt.Errorf("load the probes: %w", err)
	}
	p := &Probes{taps: map[int]tap{}, ways: map[probed]probeWay{}}
	if err := spec.LoadAndAssign(&p.objects, nil); err != nil {
		return nil, fmt.Errorf("load the probes: %w", err)
	}
	// What a check sends is little: generic XDP will do, and sends on by any driver.
	p.out, err = link.AttachXDP(link.XDPOptions{Program: p.objects.Out, Interface: outside, Flags: link.XDPGenericMode})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attach the probes to their namespace: %w", err), p.Close())
	}
	return p, nil
}

// Listen makes probes find their way back that come in on an interface. It does
// nothing if that is so already.
func (p *Probes) Listen(ifindex int) error {
	if err := p.tap(ifindex, p.objects.In); err != nil {
		return fmt.Errorf("attach the probes to interface %d: %w", ifindex, err)
	}
	return nil
}

// tap attaches a program to what comes in on an interface.
func (p *Probes) tap(ifindex int, program *ebpf.Program) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return net.ErrClosed
	}
	if p.taps[ifindex] != nil {
		return nil
	}
	t, err := attachTCX(ifindex, program)
	if errors.Is(err, ebpf.ErrNotSupported) {
		t, err = attachClsact(ifindex, program)
	}
	if err != nil {
		return err
	}
	p.taps[ifindex] = t
	return nil
}

// attachTCX needs Linux 6.6. The program goes with the process.
func attachTCX(ifindex int, program *ebpf.Program) (tap, error) {
	return link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: program, Attach: ebpf.AttachTCXIngress})
}

// clsactPriority and clsactHandle are ours among the filters of an interface: the next
// director finds there what one that was killed has left.
const (
	clsactPriority = 0xfa1e
	clsactHandle   = 1
)

// A clsactFilter is a program at an interface of a kernel without tcx.
type clsactFilter struct{ *netlink.BpfFilter }

// Close takes the filter away. An interface that is gone has none.
func (f clsactFilter) Close() error {
	err := netlink.FilterDel(f.BpfFilter)
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}

func attachClsact(ifindex int, program *ebpf.Program) (tap, error) {
	qdisc := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: ifindex, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	if err := netlink.QdiscAdd(qdisc); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("add a clsact qdisc: %w", err)
	}
	filter := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: ifindex, Parent: netlink.HANDLE_MIN_INGRESS, Handle: clsactHandle,
			Priority: clsactPriority, Protocol: unix.ETH_P_ALL,
		},
		Fd: program.FD(), Name: "fairlead_probe", DirectAction: true,
	}
	if err := netlink.FilterReplace(filter); err != nil {
		return nil, fmt.Errorf("add a filter: %w", err)
	}
	return clsactFilter{filter}, nil
}

// Route says where the packets of a probe go, from now until its source is used again.
func (p *Probes) Route(probe Probe) error {
	key := probeProbeKey{Port: toPort(probe.Source.Port()), Protocol: uint8(probe.Protocol)}
	if probe.Source.Addr().Is6() {
		key.Ipv6 = 1
	}
	server, err := p.way(probe.Server, probe.NextHop)
	if err != nil {
		return fmt.Errorf("route the probe to %s: %w", probe.Destination, err)
	}
	value := probeProbe{
		Caddr: probeAddress(toAddress(probe.Source.Addr())), Vaddr: probeAddress(toAddress(probe.Destination.Addr())),
		Vport: toPort(probe.Destination.Port()), Server: server,
	}
	if err := p.objects.Probes.Put(&key, &value); err != nil {
		return fmt.Errorf("route the probe to %s: %w", probe.Destination, err)
	}
	return nil
}

// way returns the index of a real server whose packets take a next hop.
func (p *Probes) way(server lvs.RealServer, hop lvs.NextHop) (uint32, error) {
	key := probed{server.Address, server.Method, server.Tunnel}
	p.mu.Lock()
	defer p.mu.Unlock()
	way, known := p.ways[key]
	if known && way.hop == hop {
		return way.index, nil
	}
	if !known {
		if len(p.ways) == int(directorLimitMAX_SERVERS) {
			clear(p.ways) // those that went long ago are among them
		}
		way.index = uint32(len(p.ways))
	}
	way.hop = hop
	next := toNextHop(hop)
	value := directorRealServer{Raddr: toAddress(server.Address), Hops: [2]directorNextHop{next, next}}
	if server.Method == lvs.Tunnelling {
		value.Hop = directorServerHopHOP_TUNNEL
		var source directorAddress
		if hop.SourceIP.IsValid() {
			source = toAddress(hop.SourceIP)
		}
		tunnel := toTunnel(server, source)
		if err := p.objects.Tunnels.Put(way.index, directorTunnelPair{Tunnels: [2]directorTunnel{tunnel, tunnel}}); err != nil {
			return 0, err
		}
	}
	if err := p.objects.Servers.Put(way.index, value); err != nil {
		return 0, err
	}
	p.ways[key] = way
	return way.index, nil
}

// Close ends all of it.
func (p *Probes) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	var errs []error
	for _, t := range p.taps {
		errs = append(errs, t.Close())
	}
	clear(p.taps)
	if p.out != nil {
		errs = append(errs, p.out.Close())
	}
	o := &p.objects
	return errors.Join(append(errs, o.Out.Close(), o.In.Close(), o.Probes.Close(), o.Servers.Close(), o.Tunnels.Close())...)
}
