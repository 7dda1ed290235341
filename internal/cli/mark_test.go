package cli

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

var exampleMarkRules = []lvs.MarkRule{
	{Mark: 7, Protocol: lvs.TCP, Destination: netip.MustParsePrefix("192.0.2.100/32"), SourcePorts: lvs.AllPorts, DestinationPorts: lvs.PortRange{First: 80, Last: 8080}},
	{Mark: 1<<32 - 1, Source: netip.MustParsePrefix("2001:db8::/32"), SourcePorts: lvs.PortRange{First: 53, Last: 53}, DestinationPorts: lvs.AllPorts},
}

func TestPrintMarkRules(t *testing.T) {
	for _, test := range []struct {
		rules      []lvs.MarkRule
		text, json string
	}{
		{nil, "no mark rules: no packet carries a mark\n", `{"rules":[]}`},
		{exampleMarkRules, `POSITION  MARK        PROTOCOL  CLIENT         CLIENT-PORT  VIP          PORT
1         7           tcp       any            any          192.0.2.100  80-8080
2         4294967295  any       2001:db8::/32  53           any          any
`, `{"rules":[{"position":1,"mark":7,"protocol":"tcp","client":"any","client_port":"any","vip":"192.0.2.100","port":"80-8080"},` +
			`{"position":2,"mark":4294967295,"protocol":"any","client":"2001:db8::/32","client_port":"53","vip":"any","port":"any"}]}`},
	} {
		var text, json bytes.Buffer
		if err := printMarkRules(&text, test.rules); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.text, text.String()); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		if err := printMarkRulesJSON(&json, test.rules); err != nil {
			t.Fatal(err)
		}
		if compact := strings.NewReplacer("\n", "", "  ", "", `": `, `":`).Replace(json.String()); compact != test.json {
			t.Errorf("got %s, want %s", compact, test.json)
		}
	}
}

func TestParseMark(t *testing.T) {
	for text, want := range map[string]uint32{"1": 1, "4294967295": 1<<32 - 1, "0x1f": 31, "0xffffffff": 1<<32 - 1, "010": 10} {
		if got, err := parseMark(text); err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", text, got, err, want)
		}
	}
}

// What a list shows, add reads.
func TestMarkWords(t *testing.T) {
	for _, text := range []string{"any", "192.0.2.100", "192.0.2.0/24", "0.0.0.0/0", "2001:db8::100", "2001:db8::/32", "::/0"} {
		prefix, err := parseMarkPrefix("vip", text)
		if err != nil || markPrefix(prefix) != text {
			t.Errorf("%s: got %s, %v", text, markPrefix(prefix), err)
		}
	}
	for _, text := range []string{"any", "tcp", "udp", "sctp"} {
		protocol, err := parseMarkProtocol(text)
		if err != nil || markProtocol(protocol) != text {
			t.Errorf("%s: got %s, %v", text, markProtocol(protocol), err)
		}
	}
}

func TestMarkRefusals(t *testing.T) {
	for _, test := range []struct {
		args string
		says string
	}{
		{"mark add", "arg"},
		{"mark add 0", "MARK 0: it is what a packet without a mark has: want 1 to 4294967295"},
		{"mark add 0x0", "MARK 0"},
		{"mark add 4294967296", `MARK "4294967296": want a firewall mark, 1 to 4294967295`},
		{"mark add seven", `"seven"`},
		{"mark add 7 --protocol icmp", `--protocol "icmp": want tcp, udp, sctp or any`},
		{"mark add 7 --vip www", `--vip "www": want an address or a prefix`},
		{"mark add 7 --vip fe80::1%eth0", `--vip "fe80::1%eth0": want`},
		{"mark add 7 --client 192.0.2.0/33", `--client "192.0.2.0/33": want`},
		{"mark add 7 --client 192.0.2.1/24", "did you mean 192.0.2.0/24?"},
		{"mark add 7 --client 192.0.2.1 --vip 2001:db8::1", "no packet is both"},
		{"mark add 7 --port 81-80", `--port: ports "81-80"`},
		{"mark add 7 --port 65536", `"65536"`},
		{"mark add 7 --client-port x", `--client-port: ports "x"`},
		{"mark add 7 --at 0", "--at 0: want 1, before all other rules"},
		{"mark add 7", "director.sock"},
		{"mark remove", "want either POSITION"},
		{"mark remove 1 --mark 7", "want either POSITION"},
		{"mark remove 1 --port 80", "remove 1: the options of a rule go with --mark"},
		{"mark remove --mark 0", "MARK 0"},
		{"mark remove --mark 7 --port 80", "director.sock"},
		{"mark remove 0", `POSITION "0": want the number that fairlead mark list shows`},
		{"mark remove 1", "director.sock"},
		{"mark list -o yaml", "text or json"},
		{"mark list", "director.sock"},
	} {
		status, stdout, stderr := run(t, "", strings.Fields(test.args)...)
		if status != 1 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, test.says) {
			t.Errorf("%s: status %d, stdout %q, stderr %q; want %q", test.args, status, stdout, stderr, test.says)
		}
	}
}
