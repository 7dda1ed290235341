package api

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	fairleadv1 "github.com/fairlead-lb/fairlead/api/fairlead/v1"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

func TestPeersArrive(t *testing.T) {
	d := &recorder{peers: []lvs.Peer{
		{Address: netip.MustParseAddr("192.0.2.12"), Configured: true, MAC: lvs.MAC{2, 0, 0, 0, 0, 0x12}, Interface: "eth0"},
		{Address: netip.MustParseAddr("2001:db8::13"), Problem: "2001:db8::13 does not answer neighbour solicitation on eth0"},
	}}
	got, err := serve(t, d).Peers(t.Context())
	if diff := cmp.Diff(d.peers, got, compareAddresses); err != nil || diff != "" {
		t.Errorf("%v, -sent +received:\n%s", err, diff)
	}
}

func TestBadPeers(t *testing.T) {
	for _, test := range []struct {
		name string
		peer *fairleadv1.Peer
		says string
	}{
		{"no address", &fairleadv1.Peer{}, "an address, like"},
		{"not an address", &fairleadv1.Peer{Address: "rs1"}, `"rs1"`},
		{"port", &fairleadv1.Peer{Address: "192.0.2.12:80"}, "an address, like"},
		{"zone", &fairleadv1.Peer{Address: "fe80::12%eth0"}, "without a zone"},
		{"mapped", &fairleadv1.Peer{Address: "::ffff:192.0.2.12"}, "192.0.2.12"},
		{"MAC address", &fairleadv1.Peer{Address: "192.0.2.12", Mac: "x"}, "mac"},
	} {
		_, err := peerFromWire("peer", test.peer)
		if !errors.Is(err, lvs.ErrInvalid) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: got %v", test.name, err)
		}
	}
}
