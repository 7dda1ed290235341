package journey

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// receiveBuffer holds the frames of a burst until they are read: some tens
	// of thousands of small ones.
	receiveBuffer = 64 << 20
	// largestFrame also holds what the kernel has put together (GRO).
	largestFrame = 1 << 17
)

// A Wire is an interface whose other end is a host: a port of a switch.
type Wire struct {
	Host      string
	Interface string
}

// A Capture records the frames on a set of wires, from [Start] to [Capture.Stop].
type Capture struct {
	wires   []*wire
	limit   int
	observe func(Frame)
	seen    atomic.Int64

	mutex  sync.Mutex
	frames []Frame
	errs   []error

	readers sync.WaitGroup
}

type wire struct {
	Wire
	socket    *os.File
	data, oob []byte // room for one frame
}

// Start opens the wires in the network namespace of the calling thread, whose lo must be
// up, and records from then on. It keeps the first limit frames of all wires together.
// Every frame, those after them too, is shown to observe, one at a time; the
// frames of one wire in order.
func Start(wires []Wire, limit int, observe func(Frame)) (*Capture, error) {
	c := &Capture{limit: limit, observe: observe}
	stamping, err := startStamping()
	if err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	defer stamping.Close()
	for _, w := range wires {
		socket, err := listen(w.Interface)
		if err != nil {
			c.close()
			return nil, fmt.Errorf("capture on %s: %w", w.Interface, err)
		}
		c.wires = append(c.wires, &wire{Wire: w, socket: socket, data: make([]byte, largestFrame), oob: make([]byte, controlSpace)})
	}
	for _, w := range c.wires {
		c.readers.Go(func() { c.read(w) })
	}
	return c, nil
}

// Seen returns how many frames have been captured so far, kept or not.
func (c *Capture) Seen() int { return int(c.seen.Load()) }

// Stop ends the capture and returns the kept ones of the frames that have
// passed, by time. The error says how many the kernel had no room for; the
// frames are good nevertheless.
func (c *Capture) Stop() ([]Frame, error) {
	for _, w := range c.wires {
		c.fail(w, w.socket.SetReadDeadline(time.Unix(1, 0)))
	}
	c.readers.Wait()
	for _, w := range c.wires {
		c.fail(w, c.finish(w))
	}
	c.close()
	return inOrder(c.frames), errors.Join(c.errs...)
}

func (c *Capture) close() {
	for _, w := range c.wires {
		w.socket.Close()
	}
}

// finish reads what still waits in the socket, and asks the kernel how many
// frames it had to drop.
func (c *Capture) finish(w *wire) error {
	return control(w.socket, func(fd int) error {
		if err := c.drain(w, fd); err != unix.EAGAIN {
			return err
		}
		stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err != nil {
			return os.NewSyscallError("getsockopt PACKET_STATISTICS", err)
		}
		if stats.Drops > 0 {
			return fmt.Errorf("%d frames lost", stats.Drops)
		}
		return nil
	})
}

// read records what passes on the wire until the socket's read deadline.
func (c *Capture) read(w *wire) {
	raw, err := w.socket.SyscallConn()
	if err != nil {
		c.fail(w, err)
		return
	}
	err = raw.Read(func(fd uintptr) bool {
		err := c.drain(w, int(fd))
		if err == unix.EAGAIN {
			return false
		}
		c.fail(w, err)
		return true
	})
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		c.fail(w, err)
	}
}

// drain records the frames that wait in the socket. It returns what ended it:
// EAGAIN when there are no more.
func (c *Capture) drain(w *wire, fd int) error {
	for {
		frame, err := w.receive(fd)
		if err != nil {
			return err
		}
		c.seen.Add(1)
		c.mutex.Lock()
		c.observe(frame)
		if len(c.frames) < c.limit {
			c.frames = append(c.frames, frame)
		}
		c.mutex.Unlock()
	}
}

func (c *Capture) fail(w *wire, err error) {
	if err == nil {
		return
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.errs = append(c.errs, fmt.Errorf("capture on %s: %w", w.Interface, err))
}

// receive takes one frame, or returns EAGAIN.
func (w *wire) receive(fd int) (Frame, error) {
	n, oobn, _, from, err := unix.Recvmsg(fd, w.data, w.oob, unix.MSG_TRUNC)
	if err != nil {
		return Frame{}, err
	}
	frame := Frame{Host: w.Host, Direction: Out, Length: n, Data: bytes.Clone(w.data[:min(n, len(w.data))])}
	if link, ok := from.(*unix.SockaddrLinklayer); ok && link.Pkttype == unix.PACKET_OUTGOING {
		frame.Direction = In // what leaves the switch's port reaches the host
	}
	frame.Time, err = timestamp(w.oob[:oobn])
	return frame, err
}

// control does something with a socket's descriptor.
func control(socket syscall.Conn, do func(fd int) error) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Control(func(fd uintptr) { result = do(int(fd)) })
	return errors.Join(err, result)
}

// listen opens a packet socket on one interface that gets every frame in both
// directions.
func listen(name string) (*os.File, error) {
	device, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	// Protocol 0 hears nothing until bind names the interface.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	socket := os.NewFile(uintptr(fd), "packet socket on "+name)
	address := &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: device.Index}
	err = errors.Join(
		os.NewSyscallError("setsockopt SO_RCVBUFFORCE", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)),
		wantStamps(fd),
		os.NewSyscallError("bind", unix.Bind(fd, address)),
	)
	if err != nil {
		socket.Close()
		return nil, err
	}
	return socket, nil
}

func networkOrder(v uint16) uint16 {
	return binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, v))
}
