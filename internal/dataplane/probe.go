package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
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
	NextHop     lvs.NextHop
}

// Probes carry probes out of a network namespace and back. They are apart from what
// clients' packets meet, end with the process that made them, and are safe for
// concurrent use.
type Probes struct {
	objects struct {
		Out    *ebpf.Program `ebpf:"probe_out"`
		In     *ebpf.Program `ebpf:"probe_in"`
		Probes *ebpf.Map     `ebpf:"probes"`
	}

	mu     sync.Mutex
	closed bool
	taps   map[int]tap
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
	p := &Probes{taps: map[int]tap{}}
	if err := spec.LoadAndAssign(&p.objects, nil); err != nil {
		return nil, fmt.Errorf("load the probes: %w", err)
	}
	if err := p.tap(outside, p.objects.Out); err != nil {
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

func (p *Probes) tap(ifindex int, program *ebpf.Program) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ebpf.ErrNotSupported
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
	caddr, vaddr := toAddress(probe.Source.Addr()), toAddress(probe.Destination.Addr())
	value := probeProbe{
		Caddr: probeAddress(caddr), Vaddr: probeAddress(vaddr), Vport: toPort(probe.Destination.Port()),
		Vlan: probe.NextHop.VLAN, Ifindex: uint32(probe.NextHop.InterfaceIndex),
	}
	var macs [12]byte
	copy(macs[:], probe.NextHop.Destination[:])
	copy(macs[6:], probe.NextHop.Source[:])
	for i := range value.DestinationSource {
		value.DestinationSource[i] = binary.NativeEndian.Uint32(macs[4*i:])
	}
	if err := p.objects.Probes.Put(key, value); err != nil {
		return fmt.Errorf("route the probe to %s: %w", probe.Destination, err)
	}
	return nil
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
	return errors.Join(append(errs, p.objects.Out.Close(), p.objects.In.Close(), p.objects.Probes.Close())...)
}
