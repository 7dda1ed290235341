package journey

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// Frames have the time when they passed, from the first one on, though they are read later.
func TestCaptureStamps(t *testing.T) {
	testhost.EnterNamespace(t)
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	// The kernel is nearly always quick enough for who does not wait.
	for range 200 {
		checkStamps(t)
	}
}

func TestCaptureNeedsLoopback(t *testing.T) {
	testhost.EnterNamespace(t)
	if _, err := Start(nil, 0, nil); err == nil || !strings.Contains(err.Error(), "lo, which must be up") {
		t.Errorf("with lo down: %v", err)
	}
}

func checkStamps(t *testing.T) {
	t.Helper()
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	passed := make(chan struct{})
	c, err := Start([]Wire{{Host: "host", Interface: "lo"}}, 10, func(Frame) { <-passed })
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := socket.WriteTo([]byte{0}, socket.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		if _, err := socket.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	after := time.Now()
	close(passed)
	frames, err := c.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if len(frames) != 4 {
		t.Errorf("%d frames, want each datagram out and in", len(frames))
	}
	for _, frame := range frames {
		if !frame.Time.Before(after) {
			t.Errorf("a frame that had passed at %s has the time %s", after, frame.Time)
		}
	}
}
