package dataplane

import (
	"bytes"
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// jumboMTU is that of the cable: its frames lie in several buffers.
const jumboMTU = 9000

// raw opens a socket that sends and receives whole frames on an interface.
func raw(t *testing.T, name string) int {
	t.Helper()
	in, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	all := int(toPort(unix.ETH_P_ALL))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(all), Ifindex: in.Index}); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		t.Fatal(err)
	}
	return fd
}

// waitUp sets both ends of a cable up, and waits until frames pass.
func waitUp(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		l, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetMTU(l, jumboMTU)
		}
		if err == nil {
			err = netlink.LinkSetUp(l)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for _, name := range names {
		for {
			l, err := netlink.LinkByName(name)
			if err != nil {
				t.Fatal(err)
			}
			if l.Attrs().OperState == netlink.OperUp {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s does not come up", name)
			}
		}
	}
}

// Frames larger than a page are forwarded whole, in each mode: first ones of a
// connection, and those that go the short way.
func TestJumboFrames(t *testing.T) {
	for _, mode := range []Mode{ModeNative, ModeTC} {
		t.Run(string(mode), func(t *testing.T) {
			enterNamespace(t)
			waitUp(t, "a0", "a1")
			p := openMode(t, testhost.MountBPF(t), mode)
			mustAttach(t, p, "a0", "a1") // veth takes redirected frames if both ends have a program
			svc := udpService(vip4, lvs.RoundRobin)
			mustAddService(t, p, svc)
			mustAddServer(t, p, svc, server4, 1)
			in, err := net.InterfaceByName("a0")
			if err != nil {
				t.Fatal(err)
			}
			hop := lvs.NextHop{
				InterfaceIndex: in.Index, MTU: jumboMTU,
				Source: lvs.MAC(in.HardwareAddr), Destination: serverMAC(addrOf(server4)),
			}
			if err := p.SetNextHop(addrOf(server4), hop); err != nil {
				t.Fatal(err)
			}
			fd := raw(t, "a1")
			payload := make([]byte, 8900)
			for i := range payload {
				payload[i] = byte(i * 7)
			}
			for range 3 {
				frame := udpFrame(client4, vip4, payload...)
				copy(frame, in.HardwareAddr)
				if err := unix.Send(fd, frame, 0); err != nil {
					t.Fatal(err)
				}
				want := aged(frame, hop.Destination)
				copy(want[6:], in.HardwareAddr)
				receive(t, fd, want)
			}
		})
	}
}

// receive waits for a frame.
func receive(t *testing.T, fd int, want []byte) {
	t.Helper()
	got := make([]byte, 16384)
	for {
		n, _, err := unix.Recvfrom(fd, got, 0)
		if err != nil {
			t.Fatalf("wait for a frame of %d: %v", len(want), err)
		}
		if bytes.Equal(got[:n], want) {
			return
		}
	}
}
