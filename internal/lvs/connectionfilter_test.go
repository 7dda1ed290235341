package lvs

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func addrPort(text string) netip.AddrPort { return netip.MustParseAddrPort(text) }

var filtered = []Connection{
	{Protocol: TCP, Client: addrPort("203.0.113.5:1000"), Virtual: addrPort("192.0.2.100:80"), Server: addrPort("192.0.2.11:80"),
		State: StateEstablished, Expires: 890 * time.Second, Idle: 10 * time.Second, Packets: 10, Bytes: 1000},
	{Protocol: TCP, Client: addrPort("203.0.113.5:1001"), Virtual: addrPort("192.0.2.100:80"), Server: addrPort("192.0.2.12:80"),
		State: StateFinWait, Expires: 110 * time.Second, Idle: 10 * time.Second, Packets: 5, Bytes: 500},
	{Protocol: SCTP, Client: addrPort("[2001:db8::5]:1000"), Virtual: addrPort("[2001:db8::100]:80"), Server: addrPort("[2001:db8::11]:80"),
		State: StateSCTPEstablished, Expires: 900 * time.Second},
	{Template: true, Protocol: TCP, Client: addrPort("203.0.113.5:0"), Virtual: addrPort("192.0.2.100:80"), Server: addrPort("192.0.2.11:80"),
		State: StateAssured, Expires: 300 * time.Second},
	{Protocol: UDP, Client: addrPort("198.51.100.7:53"), Virtual: addrPort("192.0.2.100:53"), Server: addrPort("192.0.2.11:53"),
		State: StateUDP, Expires: time.Second, Idle: 299 * time.Second, Packets: 1, Bytes: 60},
}

func TestConnectionFilter(t *testing.T) {
	endpoint := func(text string) Endpoint {
		e, err := ParseEndpoint(text)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	for name, test := range map[string]struct {
		filter ConnectionFilter
		passes []int
	}{
		"all":         {ConnectionFilter{Limit: 1}, []int{0, 1, 2, 3, 4}},
		"protocol":    {ConnectionFilter{Protocol: TCP}, []int{0, 1, 3}},
		"client":      {ConnectionFilter{Client: endpoint("203.0.113.0/24")}, []int{0, 1, 3}},
		"client port": {ConnectionFilter{Client: endpoint(":1000")}, []int{0, 2}},
		"virtual":     {ConnectionFilter{Virtual: endpoint("192.0.2.100:80")}, []int{0, 1, 3}},
		"server":      {ConnectionFilter{Server: endpoint("[2001:db8::/32]:80")}, []int{2}},
		"state":       {ConnectionFilter{States: []ConnectionState{StateEstablished, StateUDP}}, []int{0, 4}},
		"connections": {ConnectionFilter{Kind: OnlyConnections}, []int{0, 1, 2, 4}},
		"templates":   {ConnectionFilter{Kind: OnlyTemplates}, []int{3}},
		"idle":        {ConnectionFilter{IdleAtLeast: 10 * time.Second}, []int{0, 1, 4}},
		"idle long":   {ConnectionFilter{IdleAtLeast: 299 * time.Second}, []int{4}},
		"expires":     {ConnectionFilter{ExpiresWithin: 110 * time.Second}, []int{1, 4}},
		"two":         {ConnectionFilter{Protocol: TCP, Server: endpoint("192.0.2.11"), Kind: OnlyConnections}, []int{0}},
		"none":        {ConnectionFilter{Protocol: UDP, Client: endpoint("203.0.113.0/24")}, nil},
	} {
		matcher := test.filter.Matcher()
		var passes []int
		for i := range filtered {
			if matcher.Matches(&filtered[i]) {
				passes = append(passes, i)
			}
		}
		if !slices.Equal(passes, test.passes) {
			t.Errorf("%s: got %v, want %v", name, passes, test.passes)
		}
	}
}

func TestConnectionStatesNamed(t *testing.T) {
	for name, want := range map[string][]ConnectionState{
		"ESTABLISHED": {StateEstablished, StateSCTPEstablished}, "syn_recv": {StateSynRecv}, "NONE": {StateNone},
		"ASSURED": {StateAssured}, "CLOSED": {StateSCTPClosed}, "CLOSE": {StateClose},
	} {
		if got, err := ConnectionStatesNamed(name); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v, want %v", name, got, err, want)
		}
	}
	for _, name := range []string{"", "OPEN", "ESTABLISHED "} {
		if got, err := ConnectionStatesNamed(name); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v, %v", name, got, err)
		}
	}
}

func count(t *testing.T, limit int, by ...ConnectionField) (ConnectionCount, string) {
	t.Helper()
	counter, err := NewConnectionCounter(by)
	if err != nil {
		t.Fatal(err)
	}
	for i := range filtered {
		if err := counter.Add(&filtered[i]); err != nil {
			t.Fatal(err)
		}
	}
	got := counter.Count(limit)
	var rows []string
	for _, g := range got.Groups {
		rows = append(rows, strings.Join(g.Values, " ")+" "+strings.Repeat("x", int(g.Connections)))
	}
	return got, strings.Join(rows, ", ")
}

func TestCountConnections(t *testing.T) {
	for _, test := range []struct {
		by   []ConnectionField
		want string
	}{
		{nil, ""},
		{[]ConnectionField{FieldProtocol}, "TCP xxx, UDP x, SCTP x"},
		{[]ConnectionField{FieldClient}, "203.0.113.5 xxx, 198.51.100.7 x, 2001:db8::5 x"},
		{[]ConnectionField{FieldClientPort}, "1000 xx, 0 x, 53 x, 1001 x"},
		{[]ConnectionField{FieldClient, FieldClientPort}, "198.51.100.7 53 x, 203.0.113.5 0 x, 203.0.113.5 1000 x, 203.0.113.5 1001 x, 2001:db8::5 1000 x"},
		{[]ConnectionField{FieldService}, "TCP 192.0.2.100:80 xxx, UDP 192.0.2.100:53 x, SCTP [2001:db8::100]:80 x"},
		{[]ConnectionField{FieldPort}, "80 xxxx, 53 x"},
		{[]ConnectionField{FieldVIP}, "192.0.2.100 xxxx, 2001:db8::100 x"},
		{[]ConnectionField{FieldServer}, "192.0.2.11:80 xx, 192.0.2.11:53 x, 192.0.2.12:80 x, [2001:db8::11]:80 x"},
		{[]ConnectionField{FieldKind}, "connection xxxx, template x"},
		{[]ConnectionField{FieldKind, FieldState, FieldProtocol}, "connection ESTABLISHED TCP x, connection FIN_WAIT TCP x, template ASSURED TCP x, connection UDP UDP x, connection ESTABLISHED SCTP x"},
	} {
		got, rows := count(t, 0, test.by...)
		if rows != test.want {
			t.Errorf("by %v: got %s\nwant %s", test.by, rows, test.want)
		}
		if got.ConnectionTotal != (ConnectionTotal{5, 16, 1560}) || got.Omitted != 0 {
			t.Errorf("by %v: %+v", test.by, got)
		}
	}
	if got, rows := count(t, 2, FieldServer); got.Omitted != 2 || rows != "192.0.2.11:80 xx, 192.0.2.11:53 x" || got.Connections != 5 {
		t.Errorf("two at most: %s, %+v", rows, got)
	}
	if _, err := NewConnectionCounter([]ConnectionField{"age"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("no field: %v", err)
	}
}

func TestCountConnectionsIsBounded(t *testing.T) {
	counter, err := NewConnectionCounter([]ConnectionField{FieldClient})
	if err != nil {
		t.Fatal(err)
	}
	counter.most = 300
	add := func(i uint32) error {
		c := filtered[0]
		c.Client = netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}), 1)
		return counter.Add(&c)
	}
	for i := range uint32(300) {
		if err := add(i); err != nil {
			t.Fatal(err)
		}
	}
	if err := add(7); err != nil {
		t.Errorf("one more of a group: %v", err)
	}
	if err := add(300); !errors.Is(err, ErrRange) {
		t.Errorf("one group more: %v", err)
	}
}
