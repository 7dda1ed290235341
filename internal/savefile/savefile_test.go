package savefile

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
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

const example = `fairlead-save 1
sysctl conn_reuse_mode=0
sysctl timeout_established=3600
peer 192.0.2.10
peer 2001:db8::10
mark 7 protocol tcp source 198.51.100.0/24 destination 192.0.2.100/32 destination-ports 6000-6100
mark 8 source-ports 53
service tcp:192.0.2.100:80 scheduler sh flags sh-port,flag-3 persistence 300 mask 255.255.255.0
  set sloppy_tcp=-1
  server 192.0.2.12:80 route weight 2 upper 1000 lower 800
  server 192.0.2.11:80 route weight 0
service udp:[2001:db8::100]:5060 scheduler mh flags mh-stable persistence 60 mask 64 engine sip one-packet
  server [2001:db8::11]:5060 tunnel type gue port 6080 checksum remote weight 1
service fwmark:7 scheduler rr flags flag-1
  server 192.0.2.11:0 masq weight 1
service fwmark6:4294967295 scheduler wlc
`

func mustRead(t *testing.T, text string) File {
	t.Helper()
	file, err := Read(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestTextIsAStateAndBack(t *testing.T) {
	file := mustRead(t, example)
	var text bytes.Buffer
	if err := Write(&text, file.State); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(example, text.String()); diff != "" {
		t.Errorf("-read +written:\n%s", diff)
	}
	first := file.Services[0]
	if first.PersistenceTimeout != 300*time.Second || first.PersistenceMask != 0xffffff00 || first.SchedulerFlags != lvs.SHPort|lvs.Flag3 {
		t.Errorf("got %+v", first)
	}
}

func TestWhatIsLeftOut(t *testing.T) {
	file := mustRead(t, "\n# by hand\nfairlead-save 1\n\tservice tcp:192.0.2.100:80\n# the first\nserver 192.0.2.11:80\n")
	want := lvs.State{Services: []lvs.ServiceState{{
		Service: lvs.Service{
			ServiceKey: lvs.ServiceKey{Protocol: lvs.TCP, Address: netip.MustParseAddr("192.0.2.100"), Port: 80},
			Scheduler:  lvs.WeightedLeastConnection, PersistenceMask: 0xffffffff,
		},
		Servers: []lvs.RealServer{{
			RealServerKey: lvs.RealServerKey{Address: netip.MustParseAddr("192.0.2.11"), Port: 80}, Method: lvs.DirectRouting, Weight: 1,
		}},
	}}}
	if diff := cmp.Diff(want, file.State, compareAddresses); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for item, line := range map[string]string{"services[0]": "line 4", "services[0].servers[0]": "line 6", "peers[9]": "peers[9]"} {
		err := fmt.Errorf("restore: %w", &lvs.ItemError{Item: item, Err: lvs.ErrInvalid})
		if got := file.Where(err); got != line {
			t.Errorf("%s stands in %q, want %q", item, got, line)
		}
	}
	if got := file.Where(lvs.ErrInvalid); got != "" {
		t.Errorf("an error of no item stands in %q", got)
	}
}

// Any state is read as it was written, as text and as JSON.
func TestRandomStates(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	g := generator{rand.New(rand.NewPCG(seed, 0))}
	for range 300 {
		want := g.state()
		for name, write := range map[string]func(*bytes.Buffer) error{
			"text": func(b *bytes.Buffer) error { return Write(b, want) },
			"JSON": func(b *bytes.Buffer) error { return WriteJSON(b, want) },
		} {
			var b bytes.Buffer
			if err := write(&b); err != nil {
				t.Fatal(err)
			}
			written := b.String()
			got, err := Read(&b)
			if diff := cmp.Diff(want, got.State, compareAddresses); err != nil || diff != "" {
				t.Fatalf("seed %d, %s: %v, -written +read:\n%s\n%s", seed, name, err, diff, written)
			}
		}
	}
}

type generator struct{ *rand.Rand }

func pick[T any](g generator, from ...T) T { return from[g.IntN(len(from))] }

func (g generator) address(v6 bool) netip.Addr {
	if v6 {
		return netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, 15: byte(g.IntN(256))})
	}
	return netip.AddrFrom4([4]byte{192, 0, 2, byte(g.IntN(256))})
}

func (g generator) settings() (settings []lvs.SysctlSetting) {
	for _, s := range lvs.Sysctls() {
		if g.IntN(20) == 0 {
			settings = append(settings, lvs.SysctlSetting{Name: s.Name, Value: pick(g, s.Min, s.Max)})
		}
	}
	return settings
}

func (g generator) state() lvs.State {
	state := lvs.State{Sysctls: g.settings()}
	for range g.IntN(3) {
		state.Peers = append(state.Peers, g.address(pick(g, true, false)))
	}
	for range g.IntN(3) {
		first := uint16(g.IntN(1 << 16))
		state.Marks = append(state.Marks, lvs.MarkRule{
			Mark: g.Uint32(), Protocol: pick(g, 0, lvs.TCP, lvs.UDP, lvs.SCTP),
			Source:      pick(g, netip.Prefix{}, netip.MustParsePrefix("198.51.100.0/24")),
			Destination: pick(g, netip.Prefix{}, netip.PrefixFrom(g.address(false), 32)),
			SourcePorts: pick(g, lvs.AllPorts, lvs.PortRange{First: first, Last: first}), DestinationPorts: lvs.PortRange{First: first, Last: 65535},
		})
	}
	for range g.IntN(3) {
		state.LocalAddresses = append(state.LocalAddresses, lvs.LocalAddress{
			Prefix: pick(g, netip.MustParsePrefix("192.0.2.32/28"), netip.MustParsePrefix("2001:db8::20/128")),
			Ports:  pick(g, lvs.DefaultLocalPorts, lvs.PortRange{First: 7, Last: 7}, lvs.PortRange{First: 1, Last: 65535}),
		})
	}
	for range g.IntN(5) {
		state.Services = append(state.Services, g.service())
	}
	return state
}

func (g generator) service() lvs.ServiceState {
	v6 := pick(g, true, false)
	key := lvs.ServiceKey{Protocol: pick(g, lvs.TCP, lvs.UDP, lvs.SCTP), Address: g.address(v6), Port: uint16(g.IntN(1 << 16))}
	if g.IntN(4) == 0 {
		key = lvs.MarkKey(1+g.Uint32N(1<<32-1), v6)
	}
	s := lvs.ServiceState{Service: lvs.Service{
		ServiceKey: key, Scheduler: pick(g, lvs.Schedulers()...), SchedulerFlags: lvs.SchedulerFlags(g.IntN(8)),
		PersistenceMask: lvs.FullPersistenceMask(key.Address), PersistenceEngine: pick(g, "", "sip"), OnePacket: pick(g, true, false),
	}, Sysctls: g.settings()}
	if pick(g, true, false) {
		s.PersistenceTimeout = time.Duration(1+g.IntN(lvs.MaxTimeoutSeconds)) * time.Second
		if v6 {
			s.PersistenceMask = 1 + g.Uint32N(128)
		} else {
			s.PersistenceMask = g.Uint32()
		}
	}
	for range g.IntN(4) {
		r := lvs.RealServer{
			RealServerKey: lvs.RealServerKey{Address: g.address(v6), Port: uint16(g.IntN(1 << 16))},
			Method:        pick(g, lvs.Masquerading, lvs.Local, lvs.Tunnelling, lvs.DirectRouting, lvs.FullNAT),
			Weight:        g.Uint32N(1 << 31), UpperThreshold: pick(g, 0, g.Uint32()), LowerThreshold: pick(g, 0, g.Uint32()),
		}
		if r.Method == lvs.Tunnelling {
			r.Tunnel = lvs.Tunnel{Type: pick(g, lvs.IPIP, lvs.GUE, lvs.GRE), Port: uint16(g.IntN(1 << 16)),
				Checksum: pick(g, lvs.NoChecksum, lvs.Checksum, lvs.RemoteChecksum)}
		}
		r.TOA = r.Method == lvs.FullNAT && pick(g, true, false)
		s.Servers = append(s.Servers, r)
	}
	return s
}

func TestBadLines(t *testing.T) {
	const service = "service tcp:192.0.2.100:80"
	const service6 = "service udp:[2001:db8::100]:53"
	for _, test := range []struct {
		line string
		says []string
	}{
		{"nosuch x", []string{`"nosuch"`, "sysctl, peer, mark, local-address, service, set or server"}},
		{"server", []string{"fairlead save --help"}},
		{"sysctl nosuch=1", []string{`"nosuch"`}},
		{"sysctl conn_reuse_mode", []string{"NAME=VALUE"}},
		{"sysctl conn_reuse_mode = 1", []string{"NAME=VALUE"}},
		{"sysctl timeout_udp=0", []string{"1 to 2678400"}},
		{"sysctl timeout_udp=default", []string{"has its default"}},
		{"sysctl sync_version=1", []string{"not supported yet", "sync daemon"}},
		{"peer rs1", []string{`"rs1"`, "192.0.2.10"}},
		{"peer ::ffff:192.0.2.1", []string{"::ffff:192.0.2.1"}},
		{"peer 192.0.2.1 192.0.2.2", []string{"one address a line"}},
		{"mark 0", []string{"1 to 4294967295"}},
		{"mark 7 protocol icmp", []string{"tcp, udp or sctp"}},
		{"mark 7 source 192.0.2.1/24", []string{"did you mean 192.0.2.0/24"}},
		{"mark 7 destination 192.0.2.1", []string{"192.0.2.100/32"}},
		{"mark 7 source-ports 9-3", []string{"6000-6100"}},
		{"mark 7 port 3", []string{"destination-ports"}},
		{"set sloppy_tcp=1", []string{"service line above", "sysctl NAME=VALUE"}},
		{"server 192.0.2.11:80", []string{"service line above"}},
		{"service 192.0.2.100:80", []string{"tcp:192.0.2.100:80"}},
		{"service fwmark:0", []string{"fwmark:7"}},
		{service + " scheduler", []string{"scheduler: a value is missing"}},
		{service + " scheduler rr scheduler rr", []string{"twice"}},
		{service + " scheduler nosuch", []string{`"nosuch"`, "rr wrr"}},
		{service + " engine nosuch", []string{`"nosuch"`, "sip"}},
		{service + " rr", []string{`"rr"`, "scheduler, flags"}},
		{service + " scheduler sh flags mh-port", []string{`"mh-port"`, "sh-fallback, sh-port, flag-3"}},
		{service + " scheduler rr flags sh-port", []string{"flag-1, flag-2, flag-3"}},
		{service + " flags ,", []string{`flag ""`}},
		{service + " persistence 0", []string{"1 to 2678400"}},
		{service + " persistence 3000000", []string{"1 to 2678400"}},
		{service + " mask 255.255.255.0", []string{"persistence too"}},
		{service + " persistence 60 mask 24", []string{"255.255.255.0"}},
		{service + " persistence 60 mask 255.255.255", []string{"255.255.255.0"}},
		{service6 + " persistence 60 mask 129", []string{"1 to 128"}},
		{service + "\nserver 192.0.2.11", []string{"with a port"}},
		{service + "\nserver 192.0.2.11:80 weight -1", []string{`weight "-1"`, "0 to 2147483647"}},
		{service + "\nserver 192.0.2.11:80 weight 2147483648", []string{"0 to 2147483647"}},
		{service + "\nserver 192.0.2.11:80 upper 4294967296", []string{"0 to 4294967295"}},
		{service + "\nserver 192.0.2.11:80 gatewaying", []string{`"gatewaying"`, "route"}},
		{service + "\nserver 192.0.2.11:80 route type ipip", []string{`"type"`}},
		{service + "\nserver 192.0.2.11:80 tunnel type vxlan", []string{"ipip, gue or gre"}},
		{service + "\nserver 192.0.2.11:80 tunnel checksum maybe", []string{"none, full or remote"}},
		{service + "\nserver 192.0.2.11:80 tunnel mtu 3", []string{"checksum"}},
		{service + "\nset timeout_udp", []string{"NAME=VALUE"}},
	} {
		text := "fairlead-save 1\n" + test.line + "\n"
		_, err := Read(strings.NewReader(text))
		if err == nil {
			t.Errorf("%q is taken", test.line)
			continue
		}
		says := append(test.says, fmt.Sprintf("line %d: ", strings.Count(text, "\n")))
		for _, word := range says {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%q: %q does not say %q", test.line, err, word)
			}
		}
	}
}

func TestBadFiles(t *testing.T) {
	for _, test := range []struct{ text, says string }{
		{"", "empty"},
		{"# nothing\n", "empty"},
		{"service tcp:192.0.2.100:80", "want fairlead-save 1 first"},
		{"-A -t 192.0.2.100:80 -s rr", "fairlead ipvsadm-restore"},
		{"fairlead-save 2", "reads version 1"},
		{"fairlead-save 1\n# " + strings.Repeat("x", maxLine), "line 2"},
		{`{"version": 2}`, "reads version 1"},
		{`{"version": 1, "nosuch": 3}`, "nosuch"},
		{"{\n\"version\": 1,\n\"peers\": 3}", "near line 3"},
		{`{"version": 1} x`, "after the state"},
		{`{"version": 1, "peers": ["rs1"]}`, "peers[0]"},
		{`{"version": 1, "marks": [""]}`, "marks[0]"},
		{`{"version": 1, "sysctls": {"nosuch": 1}}`, "nosuch"},
		{`{"version": 1, "services": [{"service": "x"}]}`, "services[0]"},
		{`{"version": 1, "services": [{"service": "fwmark:1", "scheduler": "x"}]}`, `scheduler "x"`},
		{`{"version": 1, "services": [{"service": "fwmark:1", "scheduler": "rr", "persistence_mask": "255.0.0.0"}]}`, "persistence_seconds"},
		{`{"version": 1, "services": [{"service": "fwmark:1", "scheduler": "rr", "persistence_seconds": 9999999}]}`, "0 to 2678400"},
		{`{"version": 1, "services": [{"service": "fwmark:1", "scheduler": "rr", "flags": ["x"]}]}`, `"x"`},
		{`{"version": 1, "services": [{"service": "fwmark:1", "scheduler": "rr", "sysctls": {"x": 1}}]}`, "services[0].sysctls"},
		{`{"version": 1, "services": [{"service": "fwmark:1", "scheduler": "rr", "servers": [{"address": "192.0.2.11:80", "method": "x"}]}]}`, "services[0].servers[0]"},
		{`{"version": 1, "services": [{"service": "fwmark:1", "scheduler": "rr", "servers": [{"address": "192.0.2.11:80", "method": "tunnel"}]}]}`, "tunnel"},
		{`{"version": 1, "services": [{"service": "fwmark:1", "scheduler": "rr", "servers": [{"address": "192.0.2.11:80", "method": "route", "weight": 2147483648}]}]}`, "2147483647"},
	} {
		if _, err := Read(strings.NewReader(test.text)); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%.80q: got %v, want %q", test.text, err, test.says)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(example)
	f.Add(`{"version": 1, "services": [{"service": "fwmark:1", "scheduler": "rr", "servers": []}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		file, err := Read(strings.NewReader(text))
		if err != nil {
			return
		}
		var written bytes.Buffer
		if err := Write(&written, file.State); err != nil {
			t.Fatal(err)
		}
		again, err := Read(&written)
		if diff := cmp.Diff(file.State, again.State, compareAddresses); err != nil || diff != "" {
			t.Errorf("%v, -read +written and read:\n%s", err, diff)
		}
	})
}
