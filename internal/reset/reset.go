// Package reset tells both ends of TCP connections that these are over, from between
// them. Who has not followed a connection does not know its sequence numbers, without
// which a RST counts for nothing (RFC 5961); so the client is asked for them: a
// segment that does not fit is answered with one that says both (RFC 9293, 3.10.7.4).
package reset

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

const (
	// again is after how long a client that has not answered is asked once more.
	// Linux answers one such segment of a connection in half a second.
	again = 600 * time.Millisecond
	// burst is how many are asked between two looks at what came back.
	burst = 64
	// look is how long an answer is waited for before more are asked.
	look = 5 * time.Millisecond
)

// A Connection is one to end. It must not be forwarded any more: the client's answer
// has to come to this host.
type Connection struct {
	Client, Virtual netip.AddrPort
	// Local is the client's end for the server, by FullNAT.
	Local  netip.AddrPort
	Server lvs.RealServer
	// NextHop is the real server's, for direct routing.
	NextHop lvs.NextHop
}

// A flow names a connection by what the client sends.
type flow struct{ client, virtual netip.AddrPort }

// All asks the clients, and resets both sides of those that answer, until all have or
// ctx ends. It returns how many have. A tunnelled real server is not told. It works in
// the network namespace of the calling thread.
func All(ctx context.Context, connections []Connection) (told int, err error) {
	w, err := open()
	if err != nil {
		return 0, err
	}
	defer w.close()
	waiting := map[flow]Connection{}
	for _, c := range connections {
		waiting[flow{c.Client, c.Virtual}] = c
	}
	var failed error
	for len(waiting) > 0 && ctx.Err() == nil {
		round := time.Now().Add(again)
		sent := 0
		for _, c := range waiting {
			if err := w.ask(c); err != nil {
				failed = err
			}
			if sent++; sent%burst == 0 {
				n, err := w.answer(ctx, waiting, time.Now().Add(look))
				told, failed = told+n, errors.Join(failed, err)
			}
		}
		n, err := w.answer(ctx, waiting, round)
		told, failed = told+n, errors.Join(failed, err)
	}
	if told == 0 && failed != nil {
		return 0, fmt.Errorf("reset connections: %w", failed)
	}
	return told, nil
}

// A wire sends IP packets by the host's routes, or by a next hop, and hears all that
// come in.
type wire struct {
	ipv4, ipv6 int // raw sockets that take whole packets
	frames     int
	ears       *os.File
}

func open() (w *wire, err error) {
	w = &wire{ipv4: -1, ipv6: -1, frames: -1}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if w.ipv4, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	// A host without IPv6 has no such connections either.
	if w.ipv6, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err == nil {
		err = unix.SetsockoptInt(w.ipv6, unix.SOL_IPV6, unix.IPV6_HDRINCL, 1)
	}
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		return nil, os.NewSyscallError("socket", err)
	}
	if w.frames, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	ears, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(all))
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	w.ears = os.NewFile(uintptr(ears), "packet socket")
	if err := unix.SetsockoptInt(ears, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return nil, os.NewSyscallError("setsockopt", err)
	}
	return w, nil
}

func (w *wire) close() {
	for _, fd := range []int{w.ipv4, w.ipv6, w.frames} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	if w.ears != nil {
		w.ears.Close()
	}
}

// ask sends the client a segment that does not fit, in the name of the virtual
// address.
func (w *wire) ask(c Connection) error {
	packet, err := segment{from: c.Virtual, to: c.Client, ack: true, sequence: rand.Uint32(), acknowledged: rand.Uint32()}.packet()
	if err != nil {
		return err
	}
	return w.route(packet, c.Client.Addr())
}

// route sends a packet as the host's routes say.
func (w *wire) route(packet []byte, to netip.Addr) error {
	if to.Is4() {
		return os.NewSyscallError("sendto", unix.Sendto(w.ipv4, packet, 0, &unix.SockaddrInet4{Addr: to.As4()}))
	}
	return os.NewSyscallError("sendto", unix.Sendto(w.ipv6, packet, 0, &unix.SockaddrInet6{Addr: to.As16()}))
}

// answer resets the connections of clients that answer, until a time or until none is
// waiting; those are waiting no more. It returns how many they were.
func (w *wire) answer(ctx context.Context, waiting map[flow]Connection, until time.Time) (told int, err error) {
	buffer := make([]byte, 1<<16)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(until) {
		until = deadline
	}
	if err := w.ears.SetReadDeadline(until); err != nil {
		return 0, err
	}
	for len(waiting) > 0 {
		n, err := w.ears.Read(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return told, nil
		}
		if err != nil {
			return told, fmt.Errorf("hear what clients answer: %w", err)
		}
		s, ok := parse(buffer[:n])
		if !ok || !s.ack || s.reset {
			continue
		}
		c, ok := waiting[flow{s.from, s.to}]
		if !ok {
			continue
		}
		if err := w.reset(c, s); err != nil {
			return told, err
		}
		delete(waiting, flow{s.from, s.to})
		told++
	}
	return told, nil
}

// reset tells both ends, by what the client has said.
func (w *wire) reset(c Connection, said segment) error {
	toClient, err := segment{from: c.Virtual, to: c.Client, reset: true, sequence: said.acknowledged}.packet()
	if err == nil {
		err = w.route(toClient, c.Client.Addr())
	}
	if err != nil {
		return err
	}
	toServer := segment{from: c.Client, to: c.Virtual, reset: true, sequence: said.sequence}
	switch c.Server.Method {
	case lvs.Masquerading, lvs.FullNAT:
		if c.Local.IsValid() {
			toServer.from = c.Local
		}
		toServer.to = netip.AddrPortFrom(c.Server.Address, c.Server.Port)
		packet, err := toServer.packet()
		if err != nil {
			return err
		}
		return w.route(packet, c.Server.Address)
	case lvs.DirectRouting:
		if !c.NextHop.Usable() || c.NextHop.Local {
			return nil // its end is this host, which answers for itself
		}
		packet, err := toServer.packet()
		if err != nil {
			return err
		}
		return w.frame(packet, c)
	}
	return nil
}

// frame sends a packet to a next hop.
func (w *wire) frame(packet []byte, c Connection) error {
	hop := c.NextHop
	frame := append(append([]byte{}, hop.Destination[:]...), hop.Source[:]...)
	if hop.VLAN != 0 {
		frame = binary.BigEndian.AppendUint16(frame, unix.ETH_P_8021Q)
		frame = binary.BigEndian.AppendUint16(frame, hop.VLAN)
	}
	kind := uint16(unix.ETH_P_IP)
	if c.Client.Addr().Is6() {
		kind = unix.ETH_P_IPV6
	}
	frame = append(binary.BigEndian.AppendUint16(frame, kind), packet...)
	return os.NewSyscallError("sendto", unix.Sendto(w.frames, frame, 0, &unix.SockaddrLinklayer{Ifindex: hop.InterfaceIndex}))
}
