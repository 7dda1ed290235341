package neighbor

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

func TestOriginOf(t *testing.T) {
	tests := []struct {
		name string
		in   neighbour
		want origin
	}{
		{"of the kernel", neighbour{state: netlink.NUD_STALE}, adopted},
		{"of the kernel, failed", neighbour{state: netlink.NUD_FAILED}, adopted},
		{"of an earlier watcher", neighbour{
			state: netlink.NUD_REACHABLE, flags: netlink.NTF_EXT_LEARNED, extended: netlink.NTF_EXT_MANAGED, protocol: Protocol,
		}, made},
		{"of ours, made permanent", neighbour{state: netlink.NUD_PERMANENT, protocol: Protocol}, foreign},
		{"permanent", neighbour{state: netlink.NUD_PERMANENT}, foreign},
		{"without ARP", neighbour{state: netlink.NUD_NOARP}, foreign},
		{"of another program, managed", neighbour{state: netlink.NUD_REACHABLE, extended: netlink.NTF_EXT_MANAGED}, foreign},
		{"of another program, learnt", neighbour{state: netlink.NUD_REACHABLE, flags: netlink.NTF_EXT_LEARNED, protocol: 186}, foreign},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := originOf(test.in); got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
		})
	}
}

// managed reports whether the kernel keeps an entry resolved.
func managed(e netlink.Neigh) bool { return e.FlagsExt&netlink.NTF_EXT_MANAGED != 0 }

func TestEntryIsManagedUntilForgotten(t *testing.T) {
	eachPlan(t, func(t *testing.T, n *network) {
		w := startWatching(t, n.director)
		w.watch(n.server0)
		w.awaitMAC(n.server0, n.first.mac("eth0"))
		if entry, ok := n.director.neighbour("eth0", n.server0); !ok || !managed(entry) || entry.Flags&netlink.NTF_EXT_LEARNED == 0 {
			t.Errorf("entry %+v, want one that is managed and spared by the garbage collector", entry)
		}
		w.forget(n.server0)
		w.settled()
		if entry, ok := n.director.neighbour("eth0", n.server0); ok {
			t.Errorf("still there: %+v", entry)
		}
	})
}

func TestKernelsOwnEntryIsGivenBack(t *testing.T) {
	eachPlan(t, func(t *testing.T, n *network) {
		n.director.setNeighbour("eth0", n.server0, n.first.mac("eth0"), netlink.NUD_REACHABLE)
		w := startWatching(t, n.director)
		w.watch(n.server0)
		w.awaitMAC(n.server0, n.first.mac("eth0"))
		if entry, ok := n.director.neighbour("eth0", n.server0); !ok || !managed(entry) {
			t.Errorf("entry %+v, want it managed", entry)
		}
		w.forget(n.server0)
		w.settled()
		entry, ok := n.director.neighbour("eth0", n.server0)
		if !ok || managed(entry) || entry.Flags&netlink.NTF_EXT_LEARNED != 0 {
			t.Errorf("entry %+v, want it unmarked", entry)
		}
	})
}

func TestPermanentEntryIsLeft(t *testing.T) {
	eachPlan(t, func(t *testing.T, n *network) {
		mac := lvs.MAC{2, 0, 0, 0, 0, 0x99}
		n.director.setNeighbour("eth0", n.server0, mac, netlink.NUD_PERMANENT)
		w := startWatching(t, n.director)
		w.watch(n.server0)
		w.awaitMAC(n.server0, mac)
		unchanged := func() {
			t.Helper()
			entry, ok := n.director.neighbour("eth0", n.server0)
			if !ok || entry.State != netlink.NUD_PERMANENT || managed(entry) || lvs.MAC(entry.HardwareAddr) != mac {
				t.Errorf("entry %+v, want it as it was made", entry)
			}
		}
		unchanged()
		w.forget(n.server0)
		w.settled()
		unchanged()
	})
}

func TestEntryMadePermanentLater(t *testing.T) {
	eachPlan(t, func(t *testing.T, n *network) {
		w := startWatching(t, n.director)
		w.watch(n.server0)
		w.awaitMAC(n.server0, n.first.mac("eth0"))
		mac := lvs.MAC{2, 0, 0, 0, 0, 0x99}
		n.director.setNeighbour("eth0", n.server0, mac, netlink.NUD_PERMANENT)
		w.awaitMAC(n.server0, mac)
		w.forget(n.server0)
		w.settled()
		if entry, ok := n.director.neighbour("eth0", n.server0); !ok || entry.State != netlink.NUD_PERMANENT {
			t.Errorf("entry %+v, want it permanent", entry)
		}
	})
}

func TestEntryOfAnotherProgramIsLeft(t *testing.T) {
	n := newNetwork(t, plans[0])
	mac := lvs.MAC{2, 0, 0, 0, 0, 0x99}
	mustDo(t, "set neighbour", n.director.netlink.NeighSet(&netlink.Neigh{
		LinkIndex: n.director.index("eth0"), IP: netip.MustParseAddr(n.server0).AsSlice(), HardwareAddr: mac[:],
		State: netlink.NUD_REACHABLE, Flags: netlink.NTF_EXT_LEARNED,
	}))
	w := startWatching(t, n.director)
	w.watch(n.server0)
	w.awaitMAC(n.server0, mac)
	w.forget(n.server0)
	w.settled()
	if entry, ok := n.director.neighbour("eth0", n.server0); !ok || managed(entry) || entry.Flags&netlink.NTF_EXT_LEARNED == 0 {
		t.Errorf("entry %+v, want it as it was made", entry)
	}
}

func TestGatewayIsSharedUntilTheLastIsForgotten(t *testing.T) {
	eachPlan(t, func(t *testing.T, n *network) {
		n.director.route(n.remotePrefix, n.director.via(n.server0, "eth0"))
		next := netip.MustParseAddr(n.remote).Next().String()
		w := startWatching(t, n.director)
		for _, addr := range []string{n.remote, n.remote, next} { // watching twice counts once
			w.watch(addr)
			w.awaitMAC(addr, n.first.mac("eth0"))
		}
		w.forget(n.remote)
		w.settled()
		if entry, ok := n.director.neighbour("eth0", n.server0); !ok || !managed(entry) {
			t.Errorf("entry %+v, want it kept for the other server", entry)
		}
		w.forget(next)
		w.settled()
		if entry, ok := n.director.neighbour("eth0", n.server0); ok {
			t.Errorf("still there: %+v", entry)
		}
	})
}

func TestForgottenAndWatchedAgainIsToldAgain(t *testing.T) {
	n := newNetwork(t, plans[0])
	w := startWatching(t, n.director)
	w.watch(n.server0)
	w.awaitMAC(n.server0, n.first.mac("eth0"))
	w.forget(n.server0)
	w.settled()
	delete(w.latest, netip.MustParseAddr(n.server0))
	w.watch(n.server0)
	w.awaitMAC(n.server0, n.first.mac("eth0"))
}

func TestInterfaceThatDoesNotResolve(t *testing.T) {
	n := newNetwork(t, plans[0])
	mustDo(t, "set ARP off", n.director.netlink.LinkSetARPOff(n.director.link("eth0")))
	w := startWatching(t, n.director)
	w.watch(n.server0)
	w.awaitProblem(n.server0, n.server0+" has no permanent neighbour entry on eth0, which does not resolve addresses")
	mac := lvs.MAC{2, 0, 0, 0, 0, 0x99}
	w.within(second, func() {
		n.director.setNeighbour("eth0", n.server0, mac, netlink.NUD_PERMANENT)
		w.awaitMAC(n.server0, mac)
	})
}

// leaveEntry has a Watcher make an entry and end without forgetting, as a director
// that is killed.
func leaveEntry(t *testing.T, n *network, addr string) {
	t.Helper()
	t.Run("an earlier watcher", func(t *testing.T) {
		w := startWatching(t, n.director)
		w.watch(addr)
		w.awaitMAC(addr, n.first.mac("eth0"))
	})
	if entry, ok := n.director.neighbour("eth0", addr); !ok || !managed(entry) {
		t.Fatalf("entry %+v, want it managed after the end of its watcher", entry)
	}
}

func TestEntryOfAnEarlierWatcherIsTakenOver(t *testing.T) {
	eachPlan(t, func(t *testing.T, n *network) {
		leaveEntry(t, n, n.server0)
		w := startWatching(t, n.director)
		w.watch(n.server0)
		w.awaitMAC(n.server0, n.first.mac("eth0"))
		w.forget(n.server0)
		w.settled()
		if entry, ok := n.director.neighbour("eth0", n.server0); ok {
			t.Errorf("still there: %+v", entry)
		}
	})
}

func TestPrune(t *testing.T) {
	eachPlan(t, func(t *testing.T, n *network) {
		other := netip.MustParseAddr(n.server0).Next().String()
		n.first.address("eth0", n.prefix(other))
		leaveEntry(t, n, n.server0)
		leaveEntry(t, n, other)
		n.director.setNeighbour("eth1", n.server1, n.second.mac("eth0"), netlink.NUD_PERMANENT)
		w := startWatching(t, n.director)
		w.watch(n.server0)
		w.w.Prune()
		w.settled()
		if entry, ok := n.director.neighbour("eth0", other); ok {
			t.Errorf("left by an earlier watcher, and still there: %+v", entry)
		}
		if entry, ok := n.director.neighbour("eth0", n.server0); !ok || !managed(entry) {
			t.Errorf("entry %+v of a watched server, want it kept", entry)
		}
		if _, ok := n.director.neighbour("eth1", n.server1); !ok {
			t.Error("the permanent entry is gone")
		}
	})
}

// A kernel before 5.16 does not keep neighbours resolved; the Watcher then does.
func TestKernelWithoutManagedEntries(t *testing.T) {
	eachPlan(t, func(t *testing.T, n *network) {
		n.director.sysctl(map[string]string{
			n.timings + "base_reachable_time_ms": "100",
			n.timings + "delay_first_probe_time": "0",
			n.timings + "retrans_time_ms":        "50",
			"ipv4/neigh/eth0/locktime":           "0",
		})
		w := startWatching(t, n.director, func(w *Watcher) { w.hops.management = missing })
		w.watch(n.server0)
		w.awaitMAC(n.server0, n.first.mac("eth0"))
		if entry, ok := n.director.neighbour("eth0", n.server0); !ok || managed(entry) {
			t.Errorf("entry %+v, want one that is not managed", entry)
		}
		// Without traffic, the entry is asked again and again all the same.
		other := lvs.MAC{2, 0, 0, 0, 0, 0x77}
		n.first.setMAC("eth0", other)
		w.awaitMAC(n.server0, other)
		n.first.removeAddress("eth0", n.prefix(n.server0))
		w.awaitProblem(n.server0, canonical(n.server0)+" does not answer "+n.question+" on eth0")
		n.first.address("eth0", n.prefix(n.server0))
		w.awaitMAC(n.server0, other)
		w.forget(n.server0)
		w.settled()
		if entry, ok := n.director.neighbour("eth0", n.server0); ok {
			t.Errorf("still there: %+v", entry)
		}
	})
}
