package cli

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

var examplePeers = []lvs.Peer{
	{Address: netip.MustParseAddr("192.0.2.10"), Configured: true, MAC: lvs.MAC{2, 0, 0, 0, 0, 0x10}, Interface: "eth0"},
	{Address: netip.MustParseAddr("192.0.2.12"), Problem: "192.0.2.12 does not answer ARP on eth0"},
}

func TestPrintPeers(t *testing.T) {
	for _, test := range []struct {
		peers []lvs.Peer
		want  string
	}{
		{nil, "no peers\n"},
		{examplePeers, `PEER        ORIGIN       MAC                INTERFACE  PROBLEM
192.0.2.10  added        02:00:00:00:00:10  eth0       -
192.0.2.12  real-server  -                  -          192.0.2.12 does not answer ARP on eth0
`},
	} {
		var got bytes.Buffer
		if err := printPeers(&got, test.peers); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, got.String()); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
}

func TestPrintPeersJSON(t *testing.T) {
	for _, test := range []struct {
		peers []lvs.Peer
		want  string
	}{
		{nil, `{"peers":[]}`},
		{examplePeers, `{"peers":[{"address":"192.0.2.10","origin":"added","mac":"02:00:00:00:00:10","interface":"eth0"},` +
			`{"address":"192.0.2.12","origin":"real-server","problem":"192.0.2.12 does not answer ARP on eth0"}]}`},
	} {
		var got bytes.Buffer
		if err := printPeersJSON(&got, test.peers); err != nil {
			t.Fatal(err)
		}
		if compact := strings.NewReplacer("\n", "", "  ", "", ": ", ":").Replace(got.String()); compact != test.want {
			t.Errorf("got %s, want %s", compact, test.want)
		}
	}
}

func TestPeerRefusals(t *testing.T) {
	for _, test := range []struct {
		args []string
		says string
	}{
		{[]string{"peer", "add"}, "arg"},
		{[]string{"peer", "add", "rs1"}, `"rs1": want the other director's own address`},
		{[]string{"peer", "remove", "192.0.2.10:80"}, "192.0.2.10:80"},
		{[]string{"peer", "add", "192.0.2.10"}, "director.sock"},
		{[]string{"peer", "list", "-o", "yaml"}, "text or json"},
		{[]string{"peer", "list"}, "director.sock"},
	} {
		status, stdout, stderr := run(t, "", test.args...)
		if status != 1 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, test.says) {
			t.Errorf("%q: status %d, stdout %q, stderr %q; want %q", test.args, status, stdout, stderr, test.says)
		}
	}
}

func TestDescribeLocalServer(t *testing.T) {
	local := lvs.NextHop{Local: true}
	if got := describeNextHop(local); got != "this host" {
		t.Errorf("got %q", got)
	}
	if got := newNextHopJSON(local); got != (nextHopJSON{Usable: true, Local: true}) {
		t.Errorf("got %+v", got)
	}
}
