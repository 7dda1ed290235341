package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// Where directors serve each other, two things look like faults and are none: the
// active one answers for the VIP that this one has too, and packets for the VIP come
// in that this one leaves to its host. They are told, and healthy.

// The checks of directors that are real servers of each other.
const (
	PeerFrames = "peer-frames" // what another director forwarded was left to the host
	StandingBy = "standing-by" // another director is the active one
)

// peerVerdict is the data plane's name for a packet that a peer forwarded.
const peerVerdict = "pass-peer"

// tellPeerFrames tells how much came in from peers.
func (e *examination) tellPeerFrames(status api.Status) {
	i := slices.IndexFunc(status.Verdicts, func(v api.Verdict) bool { return v.Name == peerVerdict })
	segments := e.ordered()
	if i < 0 || status.Verdicts[i].Packets == 0 || len(segments) == 0 {
		return
	}
	e.found(Finding{
		Check: PeerFrames, Level: Healthy, Host: e.director(segments[0], netip.Addr{}),
		What: fmt.Sprintf("%d packets that another director forwarded were left to this host", status.Verdicts[i].Packets),
		Why:  "this host is a real server too: scheduled here, they would have gone on to a third host, or back; `fairlead peer list` tells from whom",
		Mend: []Remedy{},
	})
}

// standsBy reports whether the VIP is at a peer: one answers for it, and this
// director does not. It tells that.
func (e *examination) standsBy(ctx context.Context, s *segment, vip netip.Addr, mac lvs.MAC) bool {
	active := slices.ContainsFunc(s.prefixes, func(prefix netip.Prefix) bool { return prefix.Addr() == vip })
	peer := slices.ContainsFunc(e.peers, func(p lvs.Peer) bool { return p.MAC == mac })
	if active || !peer {
		return false
	}
	host := e.identify(ctx, s, vip, mac)
	e.found(Finding{
		Check: StandingBy, Level: Healthy, Service: vip.String(), Host: host,
		What: fmt.Sprintf("this director stands by: %s has %s", host, vip),
		Why:  "the two are directors of the same services, and one at a time has the VIP on the segment",
		Mend: []Remedy{},
	})
	return true
}
