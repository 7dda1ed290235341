package cli

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

var exampleDrains = []lvs.Drain{
	{
		Service: lvs.ServiceKey{Protocol: lvs.TCP, Address: netip.MustParseAddr("192.0.2.100"), Port: 80},
		Server:  lvs.RealServerKey{Address: netip.MustParseAddr("192.0.2.11"), Port: 80},
		Since:   time.Unix(1_700_000_000, 0), Initial: 120, Left: 30, Rate: 1.5, Remaining: 20 * time.Second,
	},
	{
		Service: lvs.MarkKey(7, false), Server: lvs.RealServerKey{Address: netip.MustParseAddr("192.0.2.11")},
		Since: time.Unix(1_700_000_000, 0), Deadline: time.Unix(1_700_000_300, 0), Then: lvs.DrainExpire, Initial: 2, Left: 1, Remaining: -1, Ended: true,
	},
}

func TestPrintDrains(t *testing.T) {
	const want = `SERVICE             SERVER         LEFT  OF   END/S  REMAINING        DEADLINE  THEN
TCP 192.0.2.100:80  192.0.2.11:80  30    120  1.5    about 20s to go  -         -
FWM 7               192.0.2.11:0   1     2    0.0    no estimate yet  over      expire
`
	var got bytes.Buffer
	if err := printDrains(&got, exampleDrains); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	got.Reset()
	if err := printDrainsJSON(&got, exampleDrains[1:]); err != nil {
		t.Fatal(err)
	}
	const wantJSON = `{"drains":[{"service":"fwmark:7","server":"192.0.2.11:0","since":"2023-11-14T22:13:20Z",` +
		`"deadline":"2023-11-14T22:18:20Z","then":"expire","initial":2,"left":1,"rate":0,"ended":true}]}`
	if compact := strings.NewReplacer("\n", "", "  ", "", ": ", ":").Replace(got.String()); compact != wantJSON {
		t.Errorf("got %s, want %s", compact, wantJSON)
	}
	if got, want := tellDrains(exampleDrains), "31 of 122 connections left, 1.5 end a second, no estimate yet"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDrainRefusals(t *testing.T) {
	for _, test := range []struct {
		args []string
		says string
	}{
		{[]string{"drain"}, "--list"},
		{[]string{"drain", "192.0.2.11", "--list"}, "--list"},
		{[]string{"drain", "rs1"}, `"rs1": want a real server's address`},
		{[]string{"drain", "192.0.2.11:0"}, "192.0.2.11:80"},
		{[]string{"drain", "192.0.2.11", "--then", "kill", "--deadline", "1s"}, "expire or reset"},
		{[]string{"drain", "192.0.2.11", "--then", "expire"}, "--deadline"},
		{[]string{"drain", "192.0.2.11", "--deadline", "-1s"}, "--deadline"},
		{[]string{"drain", "192.0.2.11", "--service", "http"}, "--service"},
		{[]string{"drain", "192.0.2.11", "-o", "yaml"}, "text or json"},
		{[]string{"drain", "192.0.2.11"}, "director.sock"},
		{[]string{"undrain"}, "arg"},
		{[]string{"undrain", "rs1"}, "SERVER"},
		{[]string{"undrain", "192.0.2.11"}, "director.sock"},
		{[]string{"director", "--interface", "lo", "--drain-then", "expire"}, "--drain"},
		{[]string{"director", "--interface", "lo", "--drain", "5m", "--drain-then", "kill"}, "expire or reset"},
	} {
		status, stdout, stderr := run(t, "", test.args...)
		if status != 1 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, test.says) {
			t.Errorf("%q: status %d, stdout %q, stderr %q; want %q", test.args, status, stdout, stderr, test.says)
		}
	}
}
