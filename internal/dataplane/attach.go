package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// An Attachment is an interface that the program is attached to.
type Attachment struct {
	Interface string
	Index     int
	Mode      Mode // any but ModeAuto
}

type attachment struct {
	Attachment
	link link.Link
}

func (p *Plane) linkPath(name string) string { return filepath.Join(p.dir, linksDir, name) }

// openLinks finds the links that are pinned. One whose interface is gone is
// removed.
func (p *Plane) openLinks() error {
	entries, err := os.ReadDir(filepath.Join(p.dir, linksDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read pinned links: %w", err)
	}
	for _, entry := range entries {
		if err := p.openLink(entry.Name()); err != nil {
			return fmt.Errorf("take over the link of %s: %w", entry.Name(), err)
		}
	}
	return nil
}

func (p *Plane) openLink(name string) error {
	l, err := link.LoadPinnedLink(p.linkPath(name), nil)
	if err != nil {
		return err
	}
	info, err := l.Info()
	if err != nil {
		return errors.Join(err, l.Close())
	}
	index := linkIndex(info)
	in, err := net.InterfaceByName(name)
	if err != nil || in.Index != index {
		return errors.Join(l.Unpin(), l.Close())
	}
	mode := fromXDPMode(p.view.interfaces.elements[interfaceSlot(index)].Mode)
	if info.TCX() != nil {
		mode = ModeTC
	}
	p.links[name] = &attachment{Attachment{name, index, mode}, l}
	return nil
}

// linkIndex is the interface that a link is of.
func linkIndex(info *link.Info) int {
	if tcx := info.TCX(); tcx != nil {
		return int(tcx.Ifindex)
	}
	if xdp := info.XDP(); xdp != nil {
		return int(xdp.Ifindex)
	}
	return 0
}

func interfaceSlot(index int) int { return index % int(directorLimitMAX_INTERFACES) }

// Attach attaches the program to these interfaces and no others. A link that is
// there gets this Plane's program in one step, without a gap. What was attached
// before stays attached if it fails.
func (p *Plane) Attach(interfaces []string) ([]Attachment, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, name := range interfaces {
		if slices.Contains(interfaces[:i], name) {
			return nil, fmt.Errorf("attach to %s: named twice", name)
		}
		if err := p.attach(name); err != nil {
			return nil, fmt.Errorf("attach to %s: %w", name, err)
		}
	}
	for name, a := range p.links {
		if slices.Contains(interfaces, name) {
			continue
		}
		if err := p.detach(a); err != nil {
			return nil, fmt.Errorf("detach from %s: %w", name, err)
		}
	}
	attached := make([]Attachment, 0, len(interfaces))
	for _, name := range interfaces {
		attached = append(attached, p.links[name].Attachment)
	}
	return attached, nil
}

func (p *Plane) attach(name string) error {
	in, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	slot := &p.view.interfaces.elements[interfaceSlot(in.Index)]
	if slot.Ifindex != 0 && int(slot.Ifindex) != in.Index && p.isAttached(int(slot.Ifindex)) {
		return fmt.Errorf("interface indexes %d and %d collide: indexes that differ by a multiple of %d can't both be used; recreate one of them: %w",
			slot.Ifindex, in.Index, directorLimitMAX_INTERFACES, lvs.ErrInvalid)
	}
	a := p.links[name]
	if a != nil && a.Index == in.Index && (p.mode == ModeAuto || p.mode == a.Mode) {
		if err := p.writeInterface(in, a.Mode); err != nil {
			return err
		}
		program, err := p.programOf(a.Mode)
		if err != nil {
			return err
		}
		return a.link.Update(program)
	}
	if a != nil {
		if err := p.detach(a); err != nil {
			return err
		}
	}
	return p.attachNew(in)
}

func (p *Plane) isAttached(index int) bool {
	for _, a := range p.links {
		if a.Index == index {
			return true
		}
	}
	return false
}

func (p *Plane) attachNew(in *net.Interface) error {
	modes := []Mode{ModeNative, ModeGeneric}
	if p.mode != ModeAuto {
		modes = []Mode{p.mode}
	}
	var errs []error
	for _, mode := range modes {
		if err := p.writeInterface(in, mode); err != nil {
			return err
		}
		l, err := p.attachIn(mode, in.Index)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s mode: %w", mode, err))
			continue
		}
		if err := p.pinLink(l, in.Name); err != nil {
			return errors.Join(err, l.Close())
		}
		p.links[in.Name] = &attachment{Attachment{in.Name, in.Index, mode}, l}
		return nil
	}
	return errors.Join(errs...)
}

// attachIn attaches what is to run in a mode. It wraps lvs.ErrUnsupported for tc on a
// kernel without tcx.
func (p *Plane) attachIn(mode Mode, index int) (link.Link, error) {
	program, err := p.programOf(mode)
	if err != nil {
		return nil, err
	}
	switch mode {
	case ModeTC:
		l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: program, Attach: ebpf.AttachTCXIngress})
		if errors.Is(err, ebpf.ErrNotSupported) {
			return nil, fmt.Errorf("%w: it needs Linux 6.6 (tcx); the other modes need less: %w", lvs.ErrUnsupported, err)
		}
		return l, err
	case ModeGeneric:
		return link.AttachXDP(link.XDPOptions{Program: program, Interface: index, Flags: link.XDPGenericMode})
	}
	return link.AttachXDP(link.XDPOptions{Program: program, Interface: index, Flags: link.XDPDriverMode})
}

// programOf is what is to run in a mode. That of tc is loaded when it is asked for.
func (p *Plane) programOf(mode Mode) (*ebpf.Program, error) {
	if mode != ModeTC {
		return p.program(), nil
	}
	if p.tc == nil {
		program, err := p.loadTC()
		if err != nil {
			return nil, fmt.Errorf("load the program for tc: %w", err)
		}
		p.tc = program
	}
	return p.tc, nil
}

// loadTC loads the program for tc, with the plane's own maps.
func (p *Plane) loadTC() (*ebpf.Program, error) {
	spec, err := withVariables(loadDirectorTC())
	if err != nil {
		return nil, err
	}
	shared := p.sharedMaps()
	for _, name := range []string{directorMapBonds, directorMapConnections} {
		spec.Maps[name].MaxEntries = shared[name].MaxEntries()
	}
	var objects struct {
		Program *ebpf.Program `ebpf:"director"`
	}
	err = spec.LoadAndAssign(&objects, &ebpf.CollectionOptions{MapReplacements: shared})
	return objects.Program, err
}

func (p *Plane) pinLink(l link.Link, name string) error {
	if err := os.MkdirAll(filepath.Join(p.dir, linksDir), 0o700); err != nil {
		return err
	}
	return l.Pin(p.linkPath(name))
}

func (p *Plane) detach(a *attachment) error {
	delete(p.links, a.Interface)
	if err := errors.Join(a.link.Unpin(), a.link.Close()); err != nil {
		return err
	}
	p.view.interfaces.elements[interfaceSlot(a.Index)] = directorInterface{}
	return nil
}

// RefreshInterfaces tells the data plane the addresses that the attached
// interfaces have now.
func (p *Plane) RefreshInterfaces() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, a := range p.links {
		in, err := net.InterfaceByIndex(a.Index)
		if err == nil {
			err = p.writeInterface(in, a.Mode)
		}
		if err != nil {
			return fmt.Errorf("refresh interface %s: %w", name, err)
		}
	}
	return nil
}

func (p *Plane) writeInterface(in *net.Interface, mode Mode) error {
	if len(in.HardwareAddr) != 6 {
		return fmt.Errorf("interface %s has no Ethernet address: %w", in.Name, lvs.ErrInvalid)
	}
	want := directorInterface{
		Ifindex: uint32(in.Index),
		Mac:     [6]uint8(in.HardwareAddr),
		Mode:    toXDPMode(mode),
		Mtu:     uint32(min(in.MTU, math.MaxUint16)),
	}
	redirect, err := needsRedirect(in.Name)
	if err != nil {
		return err
	}
	if !redirect {
		want.TxIfindex = want.Ifindex
	}
	if addr, ok, err := ownAddress(in, false); err != nil {
		return err
	} else if ok {
		want.Address6 = toAddress(addr)
	}
	if addr, ok, err := ownAddress(in, true); err != nil {
		return err
	} else if ok {
		want.Address4 = binary.NativeEndian.Uint32(addr.AsSlice())
	}
	if slot := &p.view.interfaces.elements[interfaceSlot(in.Index)]; *slot != want {
		*slot = want
	}
	return nil
}

// ownAddress returns the interface's first global address of a family that is one of
// a network: one with a mask as long as itself is likely a VIP.
func ownAddress(in *net.Interface, ipv4 bool) (netip.Addr, bool, error) {
	addrs, err := in.Addrs()
	if err != nil {
		return netip.Addr{}, false, fmt.Errorf("read the addresses of %s: %w", in.Name, err)
	}
	for _, a := range addrs {
		network, ok := a.(*net.IPNet)
		if !ok || (network.IP.To4() != nil) != ipv4 || !network.IP.IsGlobalUnicast() {
			continue
		}
		if ones, all := network.Mask.Size(); ones == all {
			continue
		}
		return addressOf(network.IP), true, nil
	}
	return netip.Addr{}, false, nil
}

// needsRedirect reports whether frames leave the interface only when redirected:
// veth hands XDP_TX frames to its peer only if that has a program too.
func needsRedirect(name string) (bool, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("ask for the driver of %s: %w", name, err)
	}
	defer unix.Close(fd)
	info, err := unix.IoctlGetEthtoolDrvinfo(fd, name)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("ask for the driver of %s: %w", name, err)
	}
	return unix.ByteSliceToString(info.Driver[:]) == "veth", nil
}
