package realserver

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A record is a log that a test reads while it is written.
type record struct {
	mutex sync.Mutex
	text  bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.text.Write(p)
}

func (r *record) count(line string) int {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return strings.Count(r.text.String(), line)
}

// start runs a keeper on the host until the test ends or stop is called.
func start(t *testing.T, h *host, request Request) (log *record, stop func()) {
	t.Helper()
	log = &record{}
	h.config.Log = slog.New(slog.NewTextHandler(log, nil))
	h.config.NotifySocket = filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: h.config.NotifySocket, Net: "unixgram"})
	must(t, "listen as service manager", err)
	defer manager.Close()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.with(nil, func(r *RealServer) error { return r.Run(ctx, request) }) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	must(t, "set deadline", manager.SetReadDeadline(time.Now().Add(5*time.Second)))
	buffer := make([]byte, 64)
	n, err := manager.Read(buffer)
	if err != nil || string(buffer[:n]) != "READY=1" {
		t.Fatalf("service manager was told %q, %v", buffer[:n], err)
	}
	return log, stop
}

func (h *host) right() bool { return len(wrongOf(h.mustCheck(Request{}))) == 0 }

func TestRunRepairs(t *testing.T) {
	h, _ := newServer(t)
	before := h.everything()
	h.mustUp(both)
	up := h.everything()
	log, stop := start(t, h, Request{})
	if _, err := h.up(both); err == nil || !strings.Contains(err.Error(), "systemctl stop") {
		t.Errorf("up beside run: %v, want a refusal", err)
	}
	for _, drift := range []struct{ command, logged string }{
		{"ip address del 192.0.2.100/32 dev lo", `msg=repaired point="192.0.2.100/32 on lo" from=absent to=present`},
		{"ip address del 2001:db8::100/128 dev lo", `point="2001:db8::100/128 on lo"`},
		{"ip route del local 192.0.2.100 dev lo table local", `from=present to=absent`},
		{"sysctl -w net.ipv4.conf.all.arp_ignore=0", "msg=repaired point=net.ipv4.conf.all.arp_ignore from=0 to=1"},
		{"sysctl -w net.ipv4.conf.eth0.arp_announce=1", "msg=repaired point=net.ipv4.conf.eth0.arp_announce from=1 to=2"},
		{"ip -4 address flush dev lo scope host; sysctl -w net.ipv4.conf.lo.arp_ignore=0", "point=net.ipv4.conf.lo.arp_ignore from=0 to=1"},
	} {
		logged := log.count(drift.logged)
		h.shell(drift.command)
		eventually(t, 2*time.Second, "repair of: "+drift.command, func() bool { return h.right() && log.count(drift.logged) > logged })
	}
	// What only a person may mend is said once, and the end of it seen.
	h.ip("address add 192.0.2.100/24 dev eth0")
	eventually(t, 2*time.Second, "complaint", func() bool { return log.count("ip address del 192.0.2.100/24 dev eth0") == 1 })
	h.sysctl("net/ipv4/conf/all/arp_ignore", "0")
	const repaired = "msg=repaired point=net.ipv4.conf.all.arp_ignore"
	eventually(t, 2*time.Second, "repair beside an obstacle", func() bool { return log.count(repaired) == 2 })
	if n := log.count("ip address del 192.0.2.100/24 dev eth0"); n != 1 {
		t.Errorf("complained %d times", n)
	}
	h.ip("address del 192.0.2.100/24 dev eth0")
	h.ip("address add 127.0.0.1/8 dev lo scope host") // flushed above
	stop()
	same(t, "drift and repair", addressesAside(up), addressesAside(h.everything()))
	h.mustDown()
	same(t, "run and down", addressesAside(before), addressesAside(h.everything()))
}

// The default route moves to another interface, and the strict filter would drop
// the clients.
func TestRunFollowsTheDefaultRoute(t *testing.T) {
	h, _ := newServer(t)
	other := newHost(t)
	h.join("eth1", other, "eth0")
	h.ip("address add 198.51.100.11/24 dev eth1")
	h.sysctl("net/ipv4/conf/all/rp_filter", "1")
	before := h.everything()
	_, stop := start(t, h, both)
	filter := func() string { return strings.TrimSpace(h.shell("cat /proc/sys/net/ipv4/conf/eth0/rp_filter")) }
	if got := filter(); got != "0" {
		t.Errorf("rp_filter of eth0 without a default route: %s", got)
	}
	h.ip("route add default via 198.51.100.1")
	eventually(t, 2*time.Second, "loose filter", func() bool { return filter() == loose })
	stop()
	h.ip("route del default")
	h.mustDown()
	same(t, "run and down", before, h.everything())
}

// Run without an earlier up does it itself, and an interface that goes away and
// comes back is set up again.
func TestRunFollowsTheInterface(t *testing.T) {
	h, peer := newServer(t)
	log, _ := start(t, h, both)
	if !h.right() {
		t.Errorf("wrong: %q", wrongOf(h.mustCheck(Request{})))
	}
	h.ip("link del eth0")
	eventually(t, 2*time.Second, "complaint", func() bool { return log.count("no such interface") == 1 })
	h.join("eth0", peer, "eth0")
	eventually(t, 2*time.Second, "set up again", h.right)
}

func TestRunWithoutVIP(t *testing.T) {
	h, _ := newServer(t)
	err := h.with(nil, func(r *RealServer) error { return r.Run(t.Context(), Request{}) })
	if err == nil || !strings.Contains(err.Error(), "--vip") {
		t.Errorf("run: %v", err)
	}
}
