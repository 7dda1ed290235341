package journey

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// controlSpace is room for what the kernel says beside a frame.
const controlSpace = 128

// startStamping has the kernel stamp frames when they pass, and waits until it does: it begins
// to a moment after the first socket wants stamps (net_enable_timestamp in net/core/dev.c).
// Until then a frame is given the time when it is read (__sock_recv_timestamp in
// net/socket.c), and those of different wires come in a wrong order. The kernel goes on while
// what is returned is open, or another socket wants stamps. Needs lo up.
func startStamping() (io.Closer, error) {
	probe, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		return nil, err
	}
	if err := errors.Join(control(probe, wantStamps), awaitStamps(probe)); err != nil {
		probe.Close()
		return nil, fmt.Errorf("see whether the kernel stamps frames as they pass, with a datagram over lo, which must be up: %w", err)
	}
	return probe, nil
}

func awaitStamps(probe *net.UDPConn) error {
	const limit, pause = 2 * time.Second, time.Millisecond
	for deadline := time.Now().Add(limit); ; time.Sleep(pause) {
		stamped, err := stampsOnTheWay(probe, deadline)
		if err != nil || stamped {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("it does not after %s", limit)
		}
	}
}

func wantStamps(fd int) error {
	return os.NewSyscallError("setsockopt SO_TIMESTAMPNS", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1))
}

// stampsOnTheWay sends a datagram to its own socket, and reports whether it was stamped
// before it was read.
func stampsOnTheWay(probe *net.UDPConn, deadline time.Time) (bool, error) {
	own := probe.LocalAddr().(*net.UDPAddr).AddrPort()
	if _, err := probe.WriteToUDPAddrPort([]byte{0}, own); err != nil {
		return false, err
	}
	if err := probe.SetReadDeadline(deadline); err != nil {
		return false, err
	}
	oob := make([]byte, controlSpace)
	before := time.Now()
	_, n, _, _, err := probe.ReadMsgUDPAddrPort(make([]byte, 1), oob)
	if err != nil {
		return false, err
	}
	stamp, err := timestamp(oob[:n])
	return stamp.Before(before), err
}

func timestamp(oob []byte) (time.Time, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return time.Time{}, err
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
			seconds := int64(binary.NativeEndian.Uint64(m.Data))
			return time.Unix(seconds, int64(binary.NativeEndian.Uint64(m.Data[8:]))), nil
		}
	}
	return time.Time{}, errors.New("a frame without a time stamp")
}
