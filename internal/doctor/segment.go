package doctor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/journey"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// sendGap is the time from one frame to the next at least.
const sendGap = 2 * time.Millisecond

// A segment is an Ethernet segment that the director is on.
type segment struct {
	device   *net.Interface
	mac      lvs.MAC
	prefixes []netip.Prefix // the director's own addresses there
	socket   *os.File
	sent     time.Time
	buffer   []byte
	// roll is who answers for the VIPs, and for the director's own addresses.
	roll map[netip.Addr][]lvs.MAC
	// asking are all who were heard to ask for a MAC address, and in whose name;
	// telling those who told all unasked where an address is.
	asking, telling map[claim]bool
}

// A claim says that an address is at a MAC address.
type claim struct {
	mac     lvs.MAC
	address netip.Addr
}

// openSegment opens the interface in the network namespace of the calling thread.
func openSegment(device *net.Interface) (*segment, error) {
	s := &segment{device: device, buffer: make([]byte, 1<<16), asking: map[claim]bool{}, telling: map[claim]bool{}}
	if copy(s.mac[:], device.HardwareAddr) != len(s.mac) {
		return nil, fmt.Errorf("open %s: not an Ethernet interface", device.Name)
	}
	addresses, err := device.Addrs()
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", device.Name, err)
	}
	for _, a := range addresses {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			s.prefixes = append(s.prefixes, prefix)
		}
	}
	// Protocol 0 hears nothing until bind names the interface.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if errors.Is(err, unix.EPERM) {
		return nil, fmt.Errorf("open %s: %w: the doctor needs root, or CAP_NET_RAW", device.Name, err)
	}
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s.socket = os.NewFile(uintptr(fd), "packet socket on "+device.Name)
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	err = errors.Join(
		os.NewSyscallError("setsockopt PACKET_IGNORE_OUTGOING", unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)),
		// Questions for IPv6 addresses go to groups that a network card may not hear.
		os.NewSyscallError("setsockopt PACKET_ADD_MEMBERSHIP", unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
			&unix.PacketMreq{Ifindex: int32(device.Index), Type: unix.PACKET_MR_ALLMULTI})),
		os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: device.Index})),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", device.Name, err), s.close())
	}
	return s, nil
}

func (s *segment) close() error { return s.socket.Close() }

// own returns the director's address there from which the target is asked: of a
// prefix that holds it, else any of its family. None of the excluded, which are
// VIPs: the zero Addr if there is no other.
func (s *segment) own(target netip.Addr, excluded []netip.Addr) netip.Addr {
	var any netip.Addr
	for _, prefix := range s.prefixes {
		address := prefix.Addr()
		switch {
		case address.Is4() != target.Is4() || slices.Contains(excluded, address):
		case address.IsLinkLocalUnicast():
		case prefix.Contains(target):
			return address
		case !any.IsValid():
			any = address
		}
	}
	return any
}

// onLink returns the widest prefix of the director there that holds the address.
func (s *segment) onLink(address netip.Addr) (netip.Prefix, bool) {
	var widest netip.Prefix
	for _, prefix := range s.prefixes {
		if prefix.Contains(address) && !prefix.IsSingleIP() && (!widest.IsValid() || prefix.Bits() < widest.Bits()) {
			widest = prefix
		}
	}
	return widest.Masked(), widest.IsValid()
}

// send sends one frame, not too soon after the one before.
func (s *segment) send(ctx context.Context, frame []byte) error {
	timer := time.NewTimer(time.Until(s.sent.Add(sendGap)))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
	}
	s.sent = time.Now()
	if _, err := s.socket.Write(frame); err != nil {
		return fmt.Errorf("send on %s: %w", s.device.Name, err)
	}
	return nil
}

// listen shows frames that come in to see until see returns true or the time is
// over. It returns whether see did. A frame is valid until see returns.
func (s *segment) listen(ctx context.Context, within time.Duration, see func(frame []byte) bool) (bool, error) {
	if err := s.socket.SetReadDeadline(time.Now().Add(within)); err != nil {
		return false, err
	}
	stop := context.AfterFunc(ctx, func() { s.socket.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		n, err := s.socket.Read(s.buffer)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return false, context.Cause(ctx)
		case err != nil:
			return false, fmt.Errorf("receive on %s: %w", s.device.Name, err)
		}
		s.overhear(s.buffer[:n])
		if see(s.buffer[:n]) {
			return true, nil
		}
	}
}

// overhear remembers who asks for a MAC address, and who tells one unasked.
func (s *segment) overhear(frame []byte) {
	if !isResolution(frame) {
		return
	}
	p := journey.Decode(frame)
	const group = 1 // the bit of an address of more than one
	told := claim{p.SourceMAC, p.Target}
	switch {
	case p.Kind == journey.ARPReply, p.Kind == journey.NeighborAdvertisement:
		if p.DestinationMAC[0]&group != 0 {
			s.telling[told] = true
		}
	case !p.Resolves() || !p.Source.IsValid() || p.Source.IsUnspecified():
	case p.Source == p.Target:
		s.telling[told] = true
	default:
		s.asking[claim{p.SourceMAC, p.Source}] = true
	}
}

// isResolution reports whether the frame is ARP, or of neighbour discovery: spared
// the reading of all else.
func isResolution(frame []byte) bool {
	const typeAt, header4, nextHeaderAt, header6 = 12, 14, 20, 54
	if len(frame) < header4 {
		return false
	}
	switch binary.BigEndian.Uint16(frame[typeAt:]) {
	case unix.ETH_P_ARP:
		return true
	case unix.ETH_P_IPV6:
		return len(frame) > header6 && frame[nextHeaderAt] == unix.IPPROTO_ICMPV6
	}
	return false
}

// forget throws away what has come in so far.
func (s *segment) forget(ctx context.Context) error {
	_, err := s.listen(ctx, 0, func([]byte) bool { return false })
	return err
}

// ask sends the frame and listens, several times until see returns true.
func (s *segment) ask(ctx context.Context, frame []byte, tries int, within time.Duration, see func(frame []byte) bool) (bool, error) {
	for range tries {
		if err := s.send(ctx, frame); err != nil {
			return false, err
		}
		if seen, err := s.listen(ctx, within, see); seen || err != nil {
			return seen, err
		}
	}
	return false, nil
}
