package doctor

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/journey"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

func TestWorst(t *testing.T) {
	for _, test := range []struct {
		levels []Level
		want   Level
	}{
		{nil, Healthy},
		{[]Level{Warning}, Warning},
		{[]Level{Error, Warning}, Error},
	} {
		var findings []Finding
		for _, level := range test.levels {
			findings = append(findings, Finding{Level: level})
		}
		if got := Worst(findings); got != test.want {
			t.Errorf("%v: got %s, want %s", test.levels, got, test.want)
		}
	}
}

func TestFindingJSON(t *testing.T) {
	host := Host{Role: Neighbour, MAC: "02:00:00:00:00:01"}
	want := Finding{Check: StaleARP, Level: Error, Service: "192.0.2.100", Host: host,
		Mend: []Remedy{{Host{Role: Director, Address: netip.MustParseAddr("192.0.2.10")}, "true"}}}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Finding
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if err := json.Unmarshal([]byte(`"fatal"`), new(Level)); err == nil {
		t.Error("no error for a level that is none")
	}
}

// What the doctor sends is read back by what reads the journeys.
func TestFrames(t *testing.T) {
	mac, other := lvs.MAC{2, 0, 0, 0, 0, 0x10}, lvs.MAC{2, 0, 0, 0, 0, 0x11}
	for _, family := range []struct{ own, target string }{
		{"192.0.2.10", "192.0.2.100"},
		{"2001:db8::10", "2001:db8::100"},
	} {
		own, target := netip.MustParseAddr(family.own), netip.MustParseAddr(family.target)
		frame, err := question(mac, own, target)
		if err != nil {
			t.Fatal(err)
		}
		if p := journey.Decode(frame); !p.Resolves() || p.Target != target || p.Source != own || p.SourceMAC != mac {
			t.Errorf("question for %s: %+v", target, p)
		}
		if frame, err = unsolicited(mac, target); err != nil {
			t.Fatal(err)
		}
		if p := journey.Decode(frame); !p.Claims(target) || p.SourceMAC != mac {
			t.Errorf("announcement of %s: %+v", target, p)
		}
		c := connection{from: mac, to: other, client: netip.AddrPortFrom(own, 61000), server: netip.AddrPortFrom(target, 80), sequence: 7}
		syn, err := c.syn()
		if err != nil {
			t.Fatal(err)
		}
		if p := journey.Decode(syn); p.Flags != journey.SYN || p.Sequence != 7 || p.DestinationMAC != other ||
			netip.AddrPortFrom(p.Destination, p.DestinationPort) != c.server || c.isOf(p) {
			t.Errorf("SYN to %s: %+v", c.server, p)
		}
		back := connection{from: other, to: mac, client: c.server, server: c.client, sequence: 9}
		rst, err := back.rst()
		if err != nil {
			t.Fatal(err)
		}
		if p := journey.Decode(rst); p.Flags != journey.RST || p.Sequence != 10 || !c.isOf(p) {
			t.Errorf("RST to %s: %+v", c.client, p)
		}
	}
}

// A probe for a free address claims nothing.
func TestProbeTellsNothing(t *testing.T) {
	for _, text := range []string{"192.0.2.77", "2001:db8::77"} {
		target := netip.MustParseAddr(text)
		frame, err := question(lvs.MAC{2}, netip.Addr{}, target)
		if err != nil {
			t.Fatal(err)
		}
		if p := journey.Decode(frame); p.Target != target || !p.Source.IsUnspecified() {
			t.Errorf("%+v", p)
		}
	}
}

func TestRandomHost(t *testing.T) {
	for _, text := range []string{"192.0.2.0/24", "198.51.100.16/28", "10.0.0.0/8", "2001:db8::/64", "2001:db8::10/124"} {
		prefix := netip.MustParsePrefix(text)
		for range 1000 {
			got := randomHost(prefix)
			if !prefix.Contains(got) || got == prefix.Masked().Addr() || !prefix.Contains(got.Next()) {
				t.Fatalf("%s: %s", prefix, got)
			}
		}
	}
}

func TestBisect(t *testing.T) {
	for largest := 576; largest < 1500; largest += 77 {
		got, err := bisect(576, 1500, func(size int) (bool, error) { return size <= largest, nil })
		if got != largest || err != nil {
			t.Errorf("%d, %v, want %d", got, err, largest)
		}
	}
}

// A host that the director does not know costs no more time than all may take.
func TestNamesTakeNoTime(t *testing.T) {
	names := newDirectory()
	began := time.Now()
	for i := range 50 {
		names.name(t.Context(), netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
	}
	if took := time.Since(began); took > 2*namesWithin {
		t.Errorf("took %s", took)
	}
	if got := names.name(t.Context(), netip.MustParseAddr("127.0.0.1")); got != "localhost" {
		t.Errorf("by the hosts file: %q", got)
	}
}
