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

var exampleConnections = []lvs.Connection{
	{Protocol: lvs.TCP, Client: netip.MustParseAddrPort("203.0.113.5:40000"), Virtual: netip.MustParseAddrPort("192.0.2.100:80"),
		Server: netip.MustParseAddrPort("192.0.2.11:80"), State: lvs.StateEstablished, Expires: 13*time.Minute + 59*time.Second,
		Idle: 61 * time.Second, Packets: 10, Bytes: 1234},
	{Template: true, Protocol: lvs.TCP, Client: netip.MustParseAddrPort("[2001:db8::5]:0"), Virtual: netip.MustParseAddrPort("[2001:db8::100]:80"),
		Server: netip.MustParseAddrPort("[2001:db8::11]:80"), State: lvs.StateAssured, Expires: 2 * time.Hour},
}

func TestPrintConnections(t *testing.T) {
	for asJSON, want := range map[bool]string{
		false: `PROTO  CLIENT                 VIRTUAL                SERVER                 STATE          IDLE  EXPIRES     PACKETS         BYTES
TCP    203.0.113.5:40000      192.0.2.100:80         192.0.2.11:80          ESTABLISHED   1m01s   13m59s          10          1234
TCP    [2001:db8::5]:0        [2001:db8::100]:80     [2001:db8::11]:80      ASSURED           -    2h00m           -      template
`,
		true: `{"protocol":"TCP","client":"203.0.113.5:40000","virtual":"192.0.2.100:80","server":"192.0.2.11:80","state":"ESTABLISHED","expires_seconds":839,"idle_seconds":61,"packets":10,"bytes":1234,"template":false}
{"protocol":"TCP","client":"[2001:db8::5]:0","virtual":"[2001:db8::100]:80","server":"[2001:db8::11]:80","state":"ASSURED","expires_seconds":7200,"packets":0,"bytes":0,"template":true}
`,
	} {
		var got bytes.Buffer
		printer := newConnectionPrinter(&got, asJSON)
		for _, c := range exampleConnections {
			if err := printer(c); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(want, got.String()); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
}

func TestPrintCount(t *testing.T) {
	by := []lvs.ConnectionField{lvs.FieldService, lvs.FieldState}
	count := lvs.ConnectionCount{
		ConnectionTotal: lvs.ConnectionTotal{Connections: 12, Packets: 100, Bytes: 2000},
		Groups: []lvs.ConnectionGroup{
			{Values: []string{"TCP 192.0.2.100:80", "ESTABLISHED"}, ConnectionTotal: lvs.ConnectionTotal{Connections: 10, Packets: 90, Bytes: 1900}},
			{Values: []string{"TCP 192.0.2.100:80", "FIN_WAIT"}, ConnectionTotal: lvs.ConnectionTotal{Connections: 1, Packets: 5, Bytes: 50}},
		},
		Omitted: 1,
	}
	var text, json bytes.Buffer
	if err := printCount(&text, by, count); err != nil {
		t.Fatal(err)
	}
	const want = `SERVICE             STATE        CONNECTIONS  PACKETS  BYTES
TCP 192.0.2.100:80  ESTABLISHED  10           90       1900
TCP 192.0.2.100:80  FIN_WAIT     1            5        50
and 1 group more; 12 connections in all
`
	if diff := cmp.Diff(want, text.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if err := printCountJSON(&json, by, count); err != nil {
		t.Fatal(err)
	}
	compact := strings.NewReplacer("\n", "", "  ", "", `": `, `":`).Replace(json.String())
	if want := `{"connections":12,"packets":100,"bytes":2000,"groups":[` +
		`{"values":{"service":"TCP 192.0.2.100:80","state":"ESTABLISHED"},"connections":10,"packets":90,"bytes":1900},` +
		`{"values":{"service":"TCP 192.0.2.100:80","state":"FIN_WAIT"},"connections":1,"packets":5,"bytes":50}],"omitted_groups":1}`; compact != want {
		t.Errorf("got  %s\nwant %s", compact, want)
	}
}

func TestConnsRefusals(t *testing.T) {
	for _, test := range []struct{ args, says string }{
		{"conns x", `"x"`},
		{"conns --protocol icmp", "--protocol icmp: want tcp, udp or sctp"},
		{"conns --client here", `--client "here": invalid: want an address`},
		{"conns --client 192.0.2.1:80 --client-port 81", "--client 192.0.2.1:80 and --client-port 81: the port is said twice"},
		{"conns --port 65536", "65536"},
		{"conns --state OPEN", `--state: state "OPEN"`},
		{"conns --idle 1ms", "--idle 1ms: want whole seconds"},
		{"conns --expires -1s", "--expires -1s: want whole seconds"},
		{"conns --limit -1", "--limit -1"},
		{"conns --by age", `--by: field "age"`},
		{"conns --by server --count", "by count"},
		{"conns --templates --no-templates", "no-templates"},
		{"conns -o yaml", "text or json"},
		{"conns --state established --by server", "director.sock"},
		{"conns --address https://127.0.0.1:1", "--address needs --cert and --key"},
		{"conns --address http://127.0.0.1:1 --cert c --key k", "want https://HOST:PORT"},
		{"conns --address https://127.0.0.1:1 --cert c --key k", "read the client's certificate: open c"},
		{"conns --address https://127.0.0.1:1 --run-dir x", "run-dir"},
	} {
		status, stdout, stderr := run(t, "", strings.Fields(test.args)...)
		if status != 1 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, test.says) {
			t.Errorf("%s: status %d, stdout %q, stderr %q; want %q", test.args, status, stdout, stderr, test.says)
		}
	}
}
