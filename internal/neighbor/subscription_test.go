package neighbor

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

func TestSocketLost(t *testing.T) {
	for _, test := range []struct {
		name string
		lose func(*conn)
	}{
		{"notifications", func(c *conn) { c.notifications.Close() }},
		{"requests", func(c *conn) { c.requests.Close() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := newNetwork(t, plans[0])
			n.director.route(n.remotePrefix, n.director.via(n.server0, "eth0"))
			var opened conn
			w := startWatching(t, n.director, func(w *Watcher) { opened = *w.conn })
			w.watch(n.remote)
			w.awaitMAC(n.remote, n.first.mac("eth0"))
			w.within(second, func() {
				test.lose(&opened)
				n.director.route(n.remotePrefix, n.director.via(n.server1, "eth1"))
				w.awaitMAC(n.remote, n.second.mac("eth0"))
			})
			if !w.log.contains("netlink socket lost") {
				t.Error("not logged")
			}
			w.within(second, func() {
				n.director.route(n.remotePrefix, n.director.via(n.server0, "eth0"))
				w.awaitMAC(n.remote, n.first.mac("eth0"))
			})
		})
	}
}

func TestNotificationsOverrun(t *testing.T) {
	n := newNetwork(t, plans[0])
	n.director.route(n.remotePrefix, n.director.via(n.server0, "eth0"))
	var notifications *nl.NetlinkSocket
	w := startWatching(t, n.director, func(w *Watcher) { notifications = w.conn.notifications })
	w.watch(n.remote)
	w.awaitMAC(n.remote, n.first.mac("eth0"))
	mustDo(t, "set receive buffer", notifications.SetReceiveBufferSize(0, true)) // the least that the kernel allows
	noise := netlink.Route{LinkIndex: n.director.index("eth1"), Dst: mustParsePrefix(t, "198.18.0.0/24")}
	eventually(t, "notifications lost", func() bool {
		for range 200 {
			mustDo(t, "add route", n.director.netlink.RouteReplace(&noise))
			mustDo(t, "delete route", n.director.netlink.RouteDel(&noise))
		}
		return w.log.contains("netlink notifications lost")
	})
	w.within(second, func() {
		n.director.route(n.remotePrefix, n.director.via(n.server1, "eth1"))
		w.awaitMAC(n.remote, n.second.mac("eth0"))
	})
}

// A change that no notification tells is found by comparing.
func TestAuditFindsWhatWasNotTold(t *testing.T) {
	n := newNetwork(t, plans[0])
	w := startWatching(t, n.director, func(w *Watcher) {
		// Of a socket that is subscribed to nothing, no notification comes.
		deaf, err := nl.GetNetlinkSocketAt(n.director.NsHandle, -1, 0)
		mustDo(t, "open netlink socket", err)
		w.conn.notifications.Close()
		w.conn.notifications = deaf
	})
	w.watch(n.server0)
	w.awaitProblem(n.server0, n.server0+" does not answer ARP on eth0") // the answer was not heard
	w.within(auditInterval+second, func() { w.awaitMAC(n.server0, n.first.mac("eth0")) })
}

func TestSlowReaderGetsTheNewest(t *testing.T) {
	n := newNetwork(t, plans[0])
	w := startWatching(t, n.director)
	w.watch(n.server0)
	w.awaitMAC(n.server0, n.first.mac("eth0"))
	macs := make([]lvs.MAC, 50)
	for i := range macs {
		macs[i] = lvs.MAC{2, 0, 0, 0, 1, byte(i)}
		n.director.setNeighbour("eth0", n.server0, macs[i], netlink.NUD_PERMANENT)
	}
	last := macs[len(macs)-1]
	// All of them were taken in when the last change of something else is told.
	n.director.route(n.remotePrefix, n.director.via(n.server1, "eth1"))
	w.watch(n.remote)
	w.awaitMAC(n.remote, n.second.mac("eth0"))
	w.awaitMAC(n.server0, last)
	if got := w.told[netip.MustParseAddr(n.server0)]; got > len(macs)/2 {
		t.Errorf("%d updates for %d changes that nobody waited for", got, len(macs))
	}
}

func TestRunEnds(t *testing.T) {
	n := newNetwork(t, plans[0])
	var w *Watcher
	n.director.do(func() (err error) {
		w, err = New(slog.New(slog.DiscardHandler))
		return err
	})
	w.Watch(netip.MustParseAddr(n.server0))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- w.Run(ctx) }()
	if u := <-w.Updates(); u.NextHop != n.overEth0(n.first.mac("eth0")) {
		t.Errorf("told %+v", u)
	}
	// What is asked for before the end is done before Run returns.
	w.Forget(netip.MustParseAddr(n.server0))
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("run: %v", err)
	}
	if entry, ok := n.director.neighbour("eth0", n.server0); ok {
		t.Errorf("still there: %+v", entry)
	}
	if _, open := <-w.Updates(); open {
		t.Error("the updates are not closed")
	}
	if err := w.Run(t.Context()); err == nil {
		t.Error("run a second time")
	}
}

func TestClose(t *testing.T) {
	n := newNamespace(t)
	n.do(func() error {
		w, err := New(slog.New(slog.DiscardHandler))
		if err == nil {
			w.Close()
		}
		return err
	})
}
