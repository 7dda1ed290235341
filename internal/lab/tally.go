package lab

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-lb/fairlead/internal/journey"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A tally counts in the frames of a service what direct routing promises. It
// looks at each frame once, and keeps none.
type tally struct {
	service netip.AddrPort
	names   map[lvs.MAC]string
	edge    string // who brings the client's packets to the director's segment

	requests          int // packets to the service that reached the director
	forwarded         int // and that left it
	repliesAtClient   int
	repliesAtDirector int
	repliesFromServer int // replies that came to the edge with a real server's MAC address
	// waiting counts, by content, the packets that came into the director and have
	// not left it; less than 0 if more left it.
	waiting     map[string]int
	misdirected int              // forwarded, but not from the director to a real server
	ttls        map[string]int   // how forwarding changed the TTL: "64 -> 63"
	arrived     map[string]uint8 // TTL of what waits
	claims      map[string]int   // who said to have the VIP, by host
	// wrapped counts, by the kind of tunnel, what left the director in an outer packet
	// from one of its addresses to one of the host that the frame went to.
	wrapped   map[string]int
	addresses map[netip.Addr]string // whose they are
}

func newTally(service netip.AddrPort, ports []port) *tally {
	t := &tally{
		service: service,
		names:   namesOf(ports),
		edge:    Client,
		waiting: map[string]int{},
		ttls:    map[string]int{},
		arrived: map[string]uint8{},
		claims:  map[string]int{},
		wrapped: map[string]int{},

		addresses: map[netip.Addr]string{},
	}
	for _, p := range ports {
		t.addresses[p.IPv4.Addr()], t.addresses[p.IPv6.Addr()] = p.Name, p.Name
		if p.Name == Router {
			t.edge = Router
		}
	}
	return t
}

// observe counts one frame.
func (t *tally) observe(frame journey.Frame) {
	p := journey.Decode(frame.Data)
	switch {
	case frame.Direction == journey.Out && p.Claims(t.service.Addr()):
		t.claims[t.name(p.SourceMAC)]++
	case p.Kind != journey.TCP:
	case netip.AddrPortFrom(p.Source, p.SourcePort) == t.service:
		t.observeReply(frame, p)
	case frame.Host == Director && netip.AddrPortFrom(p.Destination, p.DestinationPort) == t.service:
		t.observeRequest(frame, p)
	}
}

func (t *tally) observeReply(frame journey.Frame, p journey.Packet) {
	if frame.Host == Director {
		t.repliesAtDirector++
	}
	if frame.Direction != journey.In {
		return
	}
	if frame.Host == Client {
		t.repliesAtClient++
	}
	if frame.Host == t.edge && isServer(t.name(p.SourceMAC)) {
		t.repliesFromServer++
	}
}

func (t *tally) observeRequest(frame journey.Frame, p journey.Packet) {
	content := p.Content()
	if frame.Direction == journey.In {
		t.requests++
		t.arrived[content] = p.TTL
		t.count(content, 1)
		return
	}
	t.forwarded++
	if t.name(p.SourceMAC) != Director || !isServer(t.name(p.DestinationMAC)) {
		t.misdirected++
	}
	if o := p.Outer; o != nil && t.addresses[o.Source] == Director && t.addresses[o.Destination] == t.name(p.DestinationMAC) {
		t.wrapped[o.Tunnel]++
	}
	if before, ok := t.arrived[content]; ok {
		t.ttls[fmt.Sprintf("%d -> %d", before, p.TTL)]++
	}
	t.count(content, -1)
}

func (t *tally) count(content string, n int) {
	t.waiting[content] += n
	if t.waiting[content] == 0 {
		delete(t.waiting, content)
		delete(t.arrived, content)
	}
}

func (t *tally) name(mac lvs.MAC) string {
	if name, ok := t.names[mac]; ok {
		return name
	}
	return mac.String()
}

// changed returns how many packets have not left the director as they came, or
// not at all.
func (t *tally) changed() int {
	n := 0
	for _, count := range t.waiting {
		n += max(count, 0)
	}
	return n
}

// listCounts writes "director 2, rs1 1".
func listCounts(counts map[string]int) string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%s %d", key, counts[key]))
	}
	return strings.Join(parts, ", ")
}
