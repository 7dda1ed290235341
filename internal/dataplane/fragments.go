package dataplane

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A HeldFragment is a fragment that came before its datagram's first one, and
// that the data plane can't keep; or, without a frame, the word that the first
// one has come.
type HeldFragment struct {
	Datagram lvs.Datagram
	// Interface is the index of the interface that it came in on.
	Interface int
	// Frame is the whole frame; nil: the datagram's first fragment came.
	Frame []byte
}

// FollowFragments calls visit for each fragment that is to be kept, and when the
// first one of a datagram comes of which some are, in the order in which the data
// plane met them. It returns the error of ctx when that ends, or of visit. Only
// one can follow at a time.
func (p *Plane) FollowFragments(ctx context.Context, visit func(HeldFragment) error) error {
	return follow(ctx, p.maps.HeldFragments, func(record []byte) error {
		held, err := readHeld(record)
		if err != nil {
			return err
		}
		return visit(held)
	})
}

// follow calls visit for each record of a ring buffer until ctx ends or visit fails,
// and returns that error. A record is visit's until it returns.
func follow(ctx context.Context, ring *ebpf.Map, visit func(record []byte) error) error {
	reader, err := ringbuf.NewReader(ring)
	if err != nil {
		return fmt.Errorf("follow %s: %w", ring, err)
	}
	stop := context.AfterFunc(ctx, func() { reader.Close() })
	defer func() {
		if stop() {
			reader.Close()
		}
	}()
	var record ringbuf.Record
	for {
		err := reader.ReadInto(&record)
		if errors.Is(err, os.ErrClosed) {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("follow %s: %w", ring, err)
		}
		if err := visit(record.RawSample); err != nil {
			return err
		}
	}
}

// readHeld reads a record of the data plane; it refers to none of its bytes
// afterwards.
func readHeld(record []byte) (HeldFragment, error) {
	var head directorHeldFragment
	rest, ok := copyHead(&head, record)
	if !ok || len(rest) < int(head.Length) {
		return HeldFragment{}, fmt.Errorf("read a fragment: a record of %d bytes is cut short", len(record))
	}
	held := HeldFragment{
		Datagram: lvs.Datagram{
			Source:         fromAddress(head.Caddr),
			Destination:    fromAddress(head.Vaddr),
			Identification: fromIdentification(head.Id, fromAddress(head.Caddr).Is4()),
			Protocol:       lvs.Protocol(head.Protocol),
		},
		Interface: int(head.Ifindex),
	}
	if head.Length > 0 {
		held.Frame = append([]byte(nil), rest[:head.Length]...)
	}
	return held, nil
}

// A FragmentSender puts fragments that were kept on their way, in the network
// namespace that it was opened in. It is safe for concurrent use.
type FragmentSender struct {
	plane  *Plane
	toHost *ebpf.Program
	socket int
}

// NewFragmentSender opens a sender, in the network namespace of the calling
// thread. It is to be closed.
func (p *Plane) NewFragmentSender() (*FragmentSender, error) {
	toHost, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name:         "to_host",
		Type:         ebpf.XDP,
		License:      "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpActionPass), asm.Return()},
	})
	if err != nil {
		return nil, fmt.Errorf("open a way for fragments to the host: %w", err)
	}
	// No protocol: nothing is received.
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open a socket for fragments: %w", err), toHost.Close())
	}
	return &FragmentSender{p, toHost, socket}, nil
}

// Close lets go of what NewFragmentSender opened.
func (s *FragmentSender) Close() error {
	return errors.Join(s.toHost.Close(), unix.Close(s.socket))
}

// Numbers of XDP actions (linux/bpf.h), beside xdpActionTX.
const (
	xdpActionPass     = 2
	xdpActionRedirect = 4
)

// Resume puts a fragment that was kept through the data plane, as if it came in
// now, and does with it what that says. It returns false, and does nothing, while
// the datagram's first fragment has not come. A fragment that the host or the
// network does not take is lost, as any packet can be; then it returns the error.
func (s *FragmentSender) Resume(held HeldFragment) (bool, error) {
	interfaceOut, _, err := runProgram(s.plane.progs.ResumeFragment, held.Frame, held.Interface)
	if err == nil && int32(interfaceOut) == int32(directorResumptionRESUME_LATER) {
		return false, nil
	}
	if err == nil {
		err = s.resume(held, int(interfaceOut))
	}
	if err != nil {
		return true, fmt.Errorf("resume a fragment of %s: %w", held.Datagram, err)
	}
	return true, nil
}

// resume puts a fragment through the data plane; the first one of its datagram left
// by interfaceOut.
func (s *FragmentSender) resume(held HeldFragment, interfaceOut int) error {
	s.plane.mu.Lock()
	program := s.plane.program()
	s.plane.mu.Unlock()
	action, frame, err := runProgram(program, held.Frame, held.Interface)
	if err != nil {
		return err
	}
	switch action {
	case xdpActionPass:
		return s.passToHost(held)
	case xdpActionTX:
		return s.send(frame, held.Interface)
	case xdpActionRedirect:
		return s.send(frame, interfaceOut)
	}
	return nil
}

func (s *FragmentSender) send(frame []byte, ifindex int) error {
	// The address is read from the frame; so is its protocol, for filters.
	to := unix.SockaddrLinklayer{Ifindex: ifindex}
	if _, ethertype, _ := network(frame); ethertype != 0 {
		to.Protocol = toPort(ethertype)
	}
	return unix.Sendto(s.socket, frame, 0, &to)
}

// passToHost gives a frame to the host as if it came in now. The data plane has
// let go of it: in generic mode it meets it again, and knows by then that its
// datagram is the host's.
func (s *FragmentSender) passToHost(held HeldFragment) error {
	const liveFrames = 1 << 1 // BPF_F_TEST_XDP_LIVE_FRAMES
	_, err := s.toHost.Run(&ebpf.RunOptions{
		Data:    held.Frame,
		Context: xdpContext{DataEnd: uint32(len(held.Frame)), IngressIfindex: uint32(held.Interface)},
		Repeat:  1,
		Flags:   liveFrames,
	})
	return err
}

// GiveUp counts fragments that were kept, and whose datagram's first one did not
// come in time.
func (s *FragmentSender) GiveUp(fragments int) error {
	return s.count(directorVerdictDROP_FRAGMENT_ALONE, fragments)
}

// Refuse counts fragments that found no room to be kept.
func (s *FragmentSender) Refuse(fragments int) error {
	return s.count(directorVerdictDROP_FRAGMENT_LOST, fragments)
}

func (s *FragmentSender) count(verdict directorVerdict, frames int) error {
	count := directorVerdictCount{Verdict: verdict, Frames: uint32(frames)}
	if _, err := s.plane.progs.CountFrames.Run(&ebpf.RunOptions{Context: count}); err != nil {
		return fmt.Errorf("count %d fragments: %w", frames, err)
	}
	return nil
}
