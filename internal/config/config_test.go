package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

var compareAddresses = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func mustParse(t *testing.T, text string) File {
	t.Helper()
	f, err := Parse("web.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return f
}

func key(t *testing.T, text string) lvs.ServiceKey {
	t.Helper()
	k, err := lvs.ParseServiceKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func routed(address string, port uint16) lvs.RealServer {
	return lvs.RealServer{
		RealServerKey: lvs.RealServerKey{Address: netip.MustParseAddr(address), Port: port}, Method: lvs.DirectRouting, Weight: 1,
	}
}

// A service can be written in six lines.
func TestSixLines(t *testing.T) {
	f := mustParse(t, `services:
  - address: tcp:192.0.2.100:80
    scheduler: wlc
    servers:
      - 192.0.2.11
      - 192.0.2.12
`)
	want := lvs.Configuration{State: lvs.State{Services: []lvs.ServiceState{{
		Service: lvs.Service{ServiceKey: key(t, "tcp:192.0.2.100:80"), Scheduler: "wlc", PersistenceMask: 0xffffffff},
		Servers: []lvs.RealServer{routed("192.0.2.11", 80), routed("192.0.2.12", 80)},
	}}}}
	if diff := cmp.Diff(want, f.Configuration, compareAddresses); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestAddressesOfServices(t *testing.T) {
	for text, want := range map[string]string{
		"tcp:192.0.2.100:80":                "tcp:192.0.2.100:80",
		"udp:[2001:db8::100]:53":            "udp:[2001:db8::100]:53",
		"sctp:192.0.2.100:0":                "sctp:192.0.2.100:0",
		"fwmark:7":                          "fwmark:7",
		"fwmark6:8":                         "fwmark6:8",
		"tcp:192.0.2.100-192.0.2.102:80":    "tcp:192.0.2.100:80 tcp:192.0.2.101:80 tcp:192.0.2.102:80",
		"tcp:192.0.2.100:80-81":             "tcp:192.0.2.100:80 tcp:192.0.2.100:81",
		"udp:192.0.2.254-192.0.2.255:7-8":   "udp:192.0.2.254:7 udp:192.0.2.254:8 udp:192.0.2.255:7 udp:192.0.2.255:8",
		"tcp:192.0.2.4/31:80":               "tcp:192.0.2.4:80 tcp:192.0.2.5:80",
		"tcp:[2001:db8::1-2001:db8::2]:80":  "tcp:[2001:db8::1]:80 tcp:[2001:db8::2]:80",
		"tcp:[2001:db8::4/127]:80":          "tcp:[2001:db8::4]:80 tcp:[2001:db8::5]:80",
		"tcp:192.0.2.100:80-79":             "",
		"tcp:192.0.2.100:0-1":               "",
		"tcp:192.0.2.100":                   "",
		"tcp:192.0.2.100:http":              "",
		"tcp:192.0.2.9-192.0.2.8:80":        "",
		"tcp:192.0.2.9-2001:db8::1:80":      "",
		"tcp:192.0.2.1/24:80":               "",
		"tcp:192.0.0.0/16:80":               "",
		"tcp:192.0.2.1-192.0.2.100:1-65535": "",
		"tcp:0.0.0.0-255.255.255.255:80":    "",
		"tcp:2001:db8::1:80":                "",
		"tcp:[192.0.2.1]:80":                "",
		"tcp:[2001:db8::1:80":               "",
		"tcp:224.0.0.1:80":                  "",
		"tcp:[fe80::1]:80":                  "",
		"tcp:[::ffff:192.0.2.1]:80":         "",
		"icmp:192.0.2.1:80":                 "",
		"fwmark:0":                          "",
		"":                                  "",
	} {
		keys, err := parseVIPs(text)
		var words []string
		for _, k := range keys {
			words = append(words, k.Text())
		}
		if want == "" && err == nil || want != "" && (err != nil || strings.Join(words, " ") != want) {
			t.Errorf("%s: got %d %.60q, %v, want %s", text, len(keys), words, err, want)
		}
	}
}

// What a service says holds for its servers, and defaults for services, until they say
// otherwise.
func TestDefaults(t *testing.T) {
	f := mustParse(t, `
services:
  - address: tcp:192.0.2.100:80
    servers: [192.0.2.11, {address: 192.0.2.12, weight: 1, method: dr}, {address: 192.0.2.13, upper: 5, tunnel: {type: gre}}]
  - address: tcp:192.0.2.101:80
    scheduler: rr
    weight: 7
    sysctls: {timeout_udp: 5, timeout_established: 15m}
    method: masquerade
    checks: []
    servers: ["192.0.2.11:8080"]
defaults:
  scheduler: sh
  flags: [sh-port]
  weight: 3
  upper: 100
  lower: 50
  method: tunnel
  tunnel: {type: gue, port: 6080, checksum: full}
  sysctls: {timeout_established: 60, sloppy_tcp: 1}
  checks: [tcp]
`)
	tunnel := lvs.Tunnel{Type: lvs.GUE, Port: 6080, Checksum: lvs.Checksum}
	server := func(address string, port uint16, weight, upper, lower uint32, method lvs.ForwardingMethod, t lvs.Tunnel) lvs.RealServer {
		return lvs.RealServer{RealServerKey: routed(address, port).RealServerKey, Weight: weight, UpperThreshold: upper,
			LowerThreshold: lower, Method: method, Tunnel: t}
	}
	want := []lvs.ServiceState{
		{
			Service: lvs.Service{ServiceKey: key(t, "tcp:192.0.2.100:80"), Scheduler: "sh", SchedulerFlags: lvs.SHPort, PersistenceMask: 0xffffffff},
			Sysctls: []lvs.SysctlSetting{{Name: "timeout_established", Value: 60}, {Name: "sloppy_tcp", Value: 1}},
			Servers: []lvs.RealServer{
				server("192.0.2.11", 80, 3, 100, 50, lvs.Tunnelling, tunnel),
				server("192.0.2.12", 80, 1, 100, 50, lvs.DirectRouting, lvs.Tunnel{}),
				server("192.0.2.13", 80, 3, 5, 0, lvs.Tunnelling, lvs.Tunnel{Type: lvs.GRE}),
			},
		},
		{
			Service: lvs.Service{ServiceKey: key(t, "tcp:192.0.2.101:80"), Scheduler: "rr", PersistenceMask: 0xffffffff},
			Sysctls: []lvs.SysctlSetting{{Name: "sloppy_tcp", Value: 1}, {Name: "timeout_udp", Value: 5}, {Name: "timeout_established", Value: 900}},
			Servers: []lvs.RealServer{server("192.0.2.11", 8080, 7, 100, 50, lvs.Masquerading, lvs.Tunnel{})},
		},
	}
	if diff := cmp.Diff(want, f.Services, compareAddresses); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if len(f.Health) != 1 || len(f.Health[0].Servers) != 3 {
		t.Errorf("health of %+v", f.Health)
	}
}

func TestServersServeTheirOwnFamily(t *testing.T) {
	f := mustParse(t, `
services:
  - address: [tcp:192.0.2.100:80, "tcp:[2001:db8::100]:80"]
    servers: [192.0.2.11, 2001:db8::11, {address: 2001:db8::12, method: tunnel}]
    persistence: {timeout: 5m, mask: 24, mask6: 64}
`)
	var got []string
	for _, s := range f.Services {
		for _, r := range s.Servers {
			got = append(got, fmt.Sprintf("%s %s %d", s.Text(), r.RealServerKey, s.PersistenceMask))
		}
	}
	if diff := cmp.Diff([]string{
		"tcp:192.0.2.100:80 192.0.2.11:80 4294967040", "tcp:192.0.2.100:80 [2001:db8::12]:80 4294967040",
		"tcp:[2001:db8::100]:80 [2001:db8::11]:80 64", "tcp:[2001:db8::100]:80 [2001:db8::12]:80 64",
	}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// A masqueraded real server may have port 0, which is any: then a packet keeps its own.
func TestAnyPortOfAServer(t *testing.T) {
	f := mustParse(t, `services: [{address: "tcp:192.0.2.100:80", method: masquerade, servers: ["192.0.2.11:0", 192.0.2.12]}]`)
	for i, want := range []uint16{0, 80} {
		if got := f.Services[0].Servers[i].Port; got != want {
			t.Errorf("server %d has port %d, want %d", i, got, want)
		}
	}
	again := mustParse(t, string(Write(lvs.Configuration{State: f.State})))
	if got := again.Services[0].Servers[0].Port; got != 0 {
		t.Errorf("written and read, it has port %d", got)
	}
}

func TestMasksOfAllClients(t *testing.T) {
	for _, mask := range []string{"0", "0.0.0.0"} {
		f := mustParse(t, "services:\n  - {address: fwmark:1, servers: [192.0.2.11], persistence: {timeout: 5m, mask: "+mask+"}}\n")
		if got := f.Services[0].PersistenceMask; got != 0 {
			t.Errorf("mask %s: %#x", mask, got)
		}
	}
}

func TestChecks(t *testing.T) {
	f := mustParse(t, `
services:
  - address: tcp:192.0.2.100:80
    quorum: 2
    notify: [{on: down, webhook: "https://alerts.example.com/x"}]
    checks:
      - tcp
      - {type: https, interval: 1s, http: {status: 200-204, digest: 9F86D081884C7D659A2FEAA0C55AD015}, tls: {verify: false}}
      - {type: udp, udp: {payload: "hex:00ff", expect: "hex:a?0b"}}
      - {type: dns, dns: {name: example.com}}
      - {type: icmp, address: 192.0.2.99, jitter: 0s}
    servers: [192.0.2.11]
    sorry-server: {address: 192.0.2.99, inhibit: true}
`)
	usual := func(c lvs.Check) lvs.Check {
		if c.Interval == 0 {
			c.Interval, c.Timeout, c.Jitter = 5*time.Second, 2*time.Second, 500*time.Millisecond
		}
		if c.Path == "" {
			c.Path = lvs.PathVIP
		}
		c.Rise, c.Fall = 1, 3
		return c
	}
	notify := []lvs.Notification{{On: []lvs.Transition{lvs.ServerDown}, Webhook: "https://alerts.example.com/x"}}
	want := []lvs.ServiceHealth{{
		ServiceKey: key(t, "tcp:192.0.2.100:80"), Quorum: 2, Notify: notify,
		Sorry:        lvs.RealServer{RealServerKey: routed("192.0.2.99", 80).RealServerKey, Method: lvs.DirectRouting},
		SorryInhibit: true,
		Servers: []lvs.ServerHealth{{
			RealServerKey: routed("192.0.2.11", 80).RealServerKey, Notify: notify,
			Checks: []lvs.Check{
				usual(lvs.Check{Type: lvs.CheckTCP}),
				usual(lvs.Check{Type: lvs.CheckHTTPS, Interval: time.Second, Timeout: time.Second, Jitter: 100 * time.Millisecond,
					TLS: &lvs.TLSCheck{SkipVerify: true},
					HTTP: lvs.HTTPCheck{Method: "GET", Path: "/", Status: []lvs.StatusRange{{First: 200, Last: 204}},
						Digest: "9f86d081884c7d659a2feaa0c55ad015"}}),
				usual(lvs.Check{Type: lvs.CheckUDP, UDP: lvs.UDPCheck{Payload: "\x00\xff",
					Expect: &lvs.BytePattern{Value: "\xa0\x0b", Mask: "\xf0\xff"}}}),
				usual(lvs.Check{Type: lvs.CheckDNS, DNS: lvs.DNSCheck{Name: "example.com.", Type: "SOA"}}),
				usual(lvs.Check{Type: lvs.CheckICMP, Interval: 5 * time.Second, Timeout: 2 * time.Second, Path: lvs.PathRIP,
					Address: netip.MustParseAddr("192.0.2.99")}),
			},
		}},
	}}
	want[0].Sorry.Weight = 1
	want[0].Usual = want[0].Servers[0]
	want[0].Usual.RealServerKey = lvs.RealServerKey{}
	if diff := cmp.Diff(want, f.Health, compareAddresses); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// Each mistake is told with its place, and with what helps.
func TestMistakes(t *testing.T) {
	service := "services:\n  - address: tcp:192.0.2.100:80\n    "
	for _, test := range []struct{ name, text, want string }{
		{"an unknown key", "servces: []", `web.yaml:1:1: unknown key "servces": did you mean services?`},
		{"a persistence engine", "services:\n  - {address: udp:192.0.2.1:5060, persistence: {timeout: 1m, engine: spi}}", `web.yaml:2:70: unknown engine "spi": did you mean sip?`},
		{"a key like no other", "xyzzy: 1", `web.yaml:1:1: unknown key "xyzzy": want one of: version, groups`},
		{"a key twice", "peers: []\npeers: []", `web.yaml:2:1: key "peers" is given twice: first in line 1`},
		{"a key twice in braces", "{peers: [], peers: []}", `web.yaml:1:13: key "peers" is given twice`},
		{"no value", "services:", `web.yaml:1:1: services: a value is missing behind it`},
		{"an empty item", "peers:\n  -\n", `web.yaml:2:3: an item of the list is empty`},
		{"another version", "version: 2", `web.yaml:1:10: "2": want a number, 1 to 1`},
		{"a mapping for a list", "services: {}", `web.yaml:1:11: a mapping: want a list of services`},
		{"a list for a mapping", "[]", `web.yaml:1:1: a list: want a mapping with keys of: version`},
		{"no address", "services:\n  - servers: []\n", `web.yaml:2:5: want one of the keys address, group`},
		{"a bad address", service + "servers: [192.0.2.256]", `web.yaml:3:15: "192.0.2.256": want an address`},
		{"a bad scheduler", service + "scheduler: wlcc", `web.yaml:3:16: unknown scheduler "wlcc": did you mean wlc?`},
		{"a flag of another scheduler", service + "scheduler: sh\n    flags: [mh-port]", `web.yaml:4:13: flag "mh-port": scheduler sh has none of that name`},
		{"a weight", service + "servers: [{address: 192.0.2.1, weight: 2147483648}]", `web.yaml:3:44: "2147483648": want a number, 0 to 2147483647`},
		{"thresholds", service + "servers: [{address: 192.0.2.1, upper: 1, lower: 2}]", `web.yaml:3:15: lower 2: the upper threshold is 1`},
		{"a server twice", service + "servers: [192.0.2.1, \"192.0.2.1:80\"]", `web.yaml:3:26: real server 192.0.2.1:80 is given twice: first in line 3`},
		{"a service twice", service + "x: 1", `web.yaml:3:5: unknown key "x"`},
		{"services that overlap", "services:\n  - address: tcp:192.0.2.100-192.0.2.102:80\n  - address: tcp:192.0.2.101:80\n",
			`web.yaml:3:14: service tcp:192.0.2.101:80 is given twice: first in line 2`},
		{"the other family", service + "servers: [2001:db8::1]", `web.yaml:3:15: address 2001:db8::1: tcp:192.0.2.100:80 is of the other family, which needs method tunnel`},
		{"brackets without quotes", service + "servers:\n      - [2001:db8::1]:80", `web.yaml:4:22: ":80": want the end of the line here; a value with such characters goes into quotes`},
		{"a group", "services: [{group: web}]\ngroups: {wep: tcp:192.0.2.1:80}", `web.yaml:1:20: unknown group "web": did you mean wep?`},
		{"a check", service + "checks: [tpc]\n    servers: []", `web.yaml:3:14: unknown check "tpc": did you mean tcp?`},
		{"a check of another type", service + "checks: [{type: tcp, http: {}}]", `web.yaml:3:26: http: a check of type tcp has none: it is for [http https http2]`},
		{"a check without its section", service + "checks: [{type: script}]", `web.yaml:3:14: key script is missing`},
		{"a timeout", service + "checks: [{type: tcp, timeout: 9s}]", `web.yaml:3:14: timeout 9s: want it not longer than the interval, 5s`},
		{"a time without a unit", service + "persistence: 300", `web.yaml:3:18: "300": want a time with its unit, like 500ms, 5s or 1h30m`},
		{"a part of a second", service + "persistence: 1.5s", `web.yaml:3:18: 1.5s: want whole numbers of 1s`},
		{"an expression", service + "checks: [{type: http, http: {body-regex: \"(\"}}]", `web.yaml:3:46: error parsing regexp: missing closing ): ` + "`(`"},
		{"a sysctl", "sysctls: {timeout_etsablished: 5}", `web.yaml:1:11: unknown sysctl "timeout_etsablished": did you mean timeout_established?`},
		{"a sysctl that is not here", "sysctls: {sync_version: 1}", `web.yaml:1:11: sysctl sync_version: not supported yet`},
		{"a sysctl of directors", service + "sysctls: {amemthresh: 1}", `web.yaml:3:15: sysctl amemthresh: it is the director's`},
		{"a sysctl's value", "sysctls: {timeout_udp: 40d}", `web.yaml:1:24: "40d": want a time with its unit`},
		{"a mark rule twice", "marks: [{mark: 1}, {mark: 1}]", `web.yaml:1:20: the same rule is in line 1`},
		{"a mark rule of both families", "marks: [{mark: 1, source: 192.0.2.0/24, destination: 2001:db8::/32}]", `web.yaml:1:9: source 192.0.2.0/24`},
		{"host bits", "marks: [{mark: 1, source: 192.0.2.1/24}]", `web.yaml:1:27: 192.0.2.1/24: bits beyond the prefix are set: did you mean 192.0.2.0/24?`},
		{"a peer twice", "peers: [192.0.2.1, 192.0.2.1]", `web.yaml:1:20: peer 192.0.2.1 is given twice`},
		{"a mask", service + "persistence: {timeout: 5m, mask: 33}", `web.yaml:3:38: "33": want a mask like 255.255.255.0, or 0 to 32`},
		{"masks", service + "persistence: {timeout: 5m, mask6: 64}", `web.yaml:3:18: mask is of IPv4 and mask6 of IPv6`},
		{"inhibit without checks", service + "inhibit: true", `web.yaml:3:14: inhibit: want checks with it`},
		{"gue without a port", service + "method: tunnel\n    tunnel: {type: gue}", `web.yaml:4:13: gue: key port is missing`},
		{"a tunnel with dr", service + "tunnel: {type: ipip}", `web.yaml:3:13: tunnel: want method tunnel with it`},
		{"notify nobody", service + "notify: [{on: up}]", `web.yaml:3:14: want one of the keys script, webhook`},
		{"a relative path", service + "notify: [{script: {command: page}}]", `web.yaml:3:33: "page": want an absolute path`},
		{"a column counts characters", "{sysctls: {}, \"größe\": 1}", `web.yaml:1:15: unknown key "größe"`},
	} {
		_, err := Parse("web.yaml", []byte(test.text))
		var all Errors
		if !errors.As(err, &all) || !errors.Is(err, lvs.ErrInvalid) {
			t.Errorf("%s: got %v", test.name, err)
			continue
		}
		if !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s:\n got %v\nwant %s", test.name, err, test.want)
		}
	}
}

// Several mistakes are told at once, the first ones first.
func TestAllMistakesAreTold(t *testing.T) {
	_, err := Parse("web.yaml", []byte("services:\n  - {address: tcp:192.0.2.100:80, schduler: rr, servers: [{address: x, wieght: 1}]}\npers: []\n"))
	want := []string{
		`web.yaml:2:35: unknown key "schduler": did you mean scheduler?`,
		`web.yaml:2:69: "x": want an address like 192.0.2.11, 192.0.2.11:80, 2001:db8::11 or "[2001:db8::11]:80"`,
		`web.yaml:2:72: unknown key "wieght": did you mean weight?`,
		`web.yaml:3:1: unknown key "pers": did you mean peers?`,
	}
	if diff := cmp.Diff(strings.Join(want, "\n"), fmt.Sprint(err)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	_, err = Parse("web.yaml", []byte("peers: ["+strings.Repeat("x, ", 100)+"]"))
	if lines := strings.Split(err.Error(), "\n"); len(lines) != maxErrors+1 || !strings.HasSuffix(lines[maxErrors], "and 80 errors more") {
		t.Errorf("%d lines, the last is %s", len(lines), lines[len(lines)-1])
	}
}

func TestWhere(t *testing.T) {
	f := mustParse(t, "services:\n  - address: [tcp:192.0.2.1:80, tcp:192.0.2.2:80]\n    servers: [192.0.2.11, 192.0.2.12]\n    checks: [tcp]\n")
	for item, want := range map[string]string{
		"services[1]":                      "web.yaml:2:33: no",
		"services[1].servers[1]":           "web.yaml:3:27: no",
		"health[1].servers[0].checks[0]":   "web.yaml:4:14: no",
		"health[0].servers[1].nonsense[3]": "web.yaml:3:27: no",
		"nonsense":                         "no",
	} {
		refusal := &lvs.ItemError{Item: item, Err: errors.New("no")}
		err := f.Where(refusal)
		if err.Error() != want || !errors.Is(err, refusal) {
			t.Errorf("%s: got %v, want %s", item, err, want)
		}
	}
}

// The reference file is the manual: it says every key that there is. The schema that is
// published is of these keys; which sysctls there are, go generate brings into it.
func TestReferenceFile(t *testing.T) {
	text, err := os.ReadFile("../../examples/fairlead.yaml")
	if err != nil {
		t.Fatal(err)
	}
	f := mustParse(t, string(text))
	if len(f.Health) == 0 || len(f.Services) == 0 || len(f.Marks) == 0 {
		t.Errorf("it declares too little: %+v", f.Configuration)
	}
	var root struct {
		Properties map[string]any
		Defs       map[string]struct{ Properties map[string]any } `json:"$defs"`
	}
	if err := json.Unmarshal([]byte(Schema()), &root); err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	for name := range root.Properties {
		keys[name] = true
	}
	for _, definition := range root.Defs {
		for name := range definition.Properties {
			keys[name] = true
		}
	}
	var lines []string
	for _, line := range strings.Split(string(text), "\n") {
		if !strings.HasPrefix(strings.TrimSpace(line), "#") {
			lines = append(lines, line)
		}
	}
	words := strings.FieldsFunc(strings.Join(lines, "\n"), func(r rune) bool { return strings.ContainsRune(" \n{},[]", r) })
	for name := range keys {
		if !slices.Contains(words, name+":") {
			t.Errorf("key %s is not in the reference file", name)
		}
	}
	schema, err := os.ReadFile("../../examples/fairlead.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(withoutSysctls(t, schema), withoutSysctls(t, []byte(Schema()))); diff != "" {
		t.Errorf("examples/fairlead.schema.json is old: go generate ./internal/config makes it anew; -old +new:\n%s", diff)
	}
}

func withoutSysctls(t *testing.T, schema []byte) (root any) {
	t.Helper()
	if err := json.Unmarshal(schema, &root); err != nil {
		t.Fatal(err)
	}
	var walk func(any)
	walk = func(v any) {
		object, _ := v.(map[string]any)
		for name, part := range object {
			if name == "sysctls" {
				delete(object, name)
			}
			walk(part)
		}
	}
	walk(root)
	return root
}

// Every reference of the schema leads somewhere.
func TestSchemaIsWhole(t *testing.T) {
	var root map[string]any
	if err := json.Unmarshal([]byte(Schema()), &root); err != nil {
		t.Fatal(err)
	}
	definitions := root["$defs"].(map[string]any)
	used := map[string]bool{}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				name := strings.TrimPrefix(ref, "#/$defs/")
				used[name] = true
				if definitions[name] == nil {
					t.Errorf("%s leads nowhere", ref)
				}
			}
			for _, part := range v {
				walk(part)
			}
		case []any:
			for _, part := range v {
				walk(part)
			}
		}
	}
	walk(root)
	for name := range definitions {
		if !used[name] {
			t.Errorf("definition %s is not used", name)
		}
	}
}

// What is written is read back as the same.
func TestWrite(t *testing.T) {
	reference, err := os.ReadFile("../../examples/fairlead.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", string(reference), `
services:
  - address: tcp:192.0.2.100:0
    persistence: 5m
    servers: [192.0.2.11, {address: 192.0.2.12, checks: [{type: script, script: {command: "/bin/a b", args: ["", "x: y", "#", "-", "ü\t\""]}}]}]
  - address: tcp:192.0.2.101:80
    quorum: 0
    notify: [{script: {command: /bin/true}}]
    checks: [tcp]
    servers: [192.0.2.11, {address: 192.0.2.12, checks: []}]
  - address: tcp:192.0.2.102:80
    checks: [tcp]
    inhibit: true
    alpha: true
    servers: [192.0.2.11, {address: 192.0.2.12, inhibit: false}, {address: 192.0.2.13, alpha: false, checks: [{type: icmp}]}]
  - address: tcp:192.0.2.103:80
    checks: [tcp]
  - address: fwmark6:7
    servers: [2001:db8::11, "[2001:db8::12]:80"]
`} {
		want := mustParse(t, text)
		written := Write(want.Configuration)
		got := mustParse(t, written)
		sortServices(&want.Configuration)
		sortServices(&got.Configuration)
		if !reflect.DeepEqual(want.Configuration, got.Configuration) {
			t.Errorf("-want +got:\n%s\n%s", cmp.Diff(want.Configuration, got.Configuration, compareAddresses), written)
		}
	}
}

// sortServices brings services into the order of their keys: theirs has no meaning.
func sortServices(c *lvs.Configuration) {
	slices.SortFunc(c.Services, func(a, b lvs.ServiceState) int { return a.ServiceKey.Compare(b.ServiceKey) })
	slices.SortFunc(c.Health, func(a, b lvs.ServiceHealth) int { return a.ServiceKey.Compare(b.ServiceKey) })
}
