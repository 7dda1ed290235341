package lab

import (
	"fmt"
	"net/netip"

	"github.com/fairlead-lb/fairlead/internal/journey"
)

// A translatedTally counts in the frames of a service what masquerading and FullNAT promise:
// each packet of a client leaves the director for a real server's own address and port, with
// FullNAT from a local address, and each reply for the client, from the service's.
type translatedTally struct {
	*tally
	method Method
	real   map[netip.AddrPort]string // where the real servers are, and whose that is
	// clients are those that real servers know by what is here.
	clients map[clientAtServer]netip.AddrPort

	requests, replies oneWay
	repliesAtClient   int // that came from the service's address and port
	untranslated      int // and from a real server's own
	fromDirector      int // with the director's MAC address, at the edge
}

// A clientAtServer is a client's end as a real server has it, and that one's own.
type clientAtServer struct{ client, server netip.AddrPort }

// A oneWay counts the packets of one direction at the director.
type oneWay struct {
	arrived, left int
	// waiting is what came in and has not left, by what masquerading leaves alone.
	waiting map[string][]journey.Packet
	// strangers left without having come, or not as they had to.
	strangers int
}

func newTranslatedTally(t *tally, method Method, servers []Host) *translatedTally {
	real := map[netip.AddrPort]string{}
	for _, server := range servers {
		for _, family := range []Family{IPv4, IPv6} {
			real[netip.AddrPortFrom(server.Address(family), method.ServerPort(t.service.Port()))] = server.Name
		}
	}
	return &translatedTally{
		tally: t, method: method, real: real, clients: map[clientAtServer]netip.AddrPort{},
		requests: oneWay{waiting: map[string][]journey.Packet{}}, replies: oneWay{waiting: map[string][]journey.Packet{}},
	}
}

// observe counts one frame.
func (t *translatedTally) observe(frame journey.Frame) {
	p := journey.Decode(frame.Data)
	if p.Kind != journey.TCP {
		t.tally.observe(frame)
		return
	}
	in := frame.Direction == journey.In
	_, fromServer := t.real[p.From()]
	switch {
	case frame.Host == Director && in && p.To() == t.service:
		t.requests.came(p)
	case frame.Host == Director && !in && t.real[p.To()] != "":
		t.requests.went(p, func(before journey.Packet) bool {
			return t.learn(before.From(), p) && t.name(p.SourceMAC) == Director && t.name(p.DestinationMAC) == t.real[p.To()]
		})
	case frame.Host == Director && in && fromServer:
		t.replies.came(p)
	case frame.Host == Director && !in && p.From() == t.service:
		t.replies.went(p, func(before journey.Packet) bool {
			return p.To() == t.clients[clientAtServer{before.To(), before.From()}] && t.name(p.SourceMAC) == Director && t.name(p.DestinationMAC) == t.edge
		})
	case in && (fromServer || p.From() == t.service):
		t.observeArrival(frame, p, fromServer)
	}
}

// learn takes who a packet's source is, which the real server it goes to sees. It reports
// whether that is what the method promises, and nobody else's.
func (t *translatedTally) learn(client netip.AddrPort, p journey.Packet) bool {
	if t.method == FullNAT && p.Source != familyOf(p.Source).LocalAddress() || t.method != FullNAT && p.From() != client {
		return false
	}
	// Another connection has the port only after the former one's end.
	seen := clientAtServer{p.From(), p.To()}
	if known, ok := t.clients[seen]; ok && known != client && p.Flags&(journey.SYN|journey.ACK) != journey.SYN {
		return false
	}
	t.clients[seen] = client
	return true
}

// observeArrival counts a reply that came to the client, or to the router before it.
func (t *translatedTally) observeArrival(frame journey.Frame, p journey.Packet, fromServer bool) {
	if frame.Host == t.edge && t.name(p.SourceMAC) == Director {
		t.fromDirector++
	}
	if frame.Host != Client {
		return
	}
	t.repliesAtClient++
	if fromServer {
		t.untranslated++
	}
}

func (w *oneWay) came(p journey.Packet) {
	w.arrived++
	key := p.TranslatedContent()
	w.waiting[key] = append(w.waiting[key], p)
}

// went takes a packet that waits out, if it is one that may become this.
func (w *oneWay) went(p journey.Packet, fits func(before journey.Packet) bool) {
	w.left++
	key := p.TranslatedContent()
	for i, before := range w.waiting[key] {
		if fits(before) {
			w.waiting[key] = append(w.waiting[key][:i], w.waiting[key][i+1:]...)
			return
		}
	}
	w.strangers++
}

// wrong returns how many packets have not left, or not as they had to.
func (w *oneWay) wrong() int {
	n := w.strangers
	for _, packets := range w.waiting {
		n += len(packets)
	}
	return n
}

func (w *oneWay) check(name, what string) Check {
	return Check{
		Name:   name,
		OK:     w.arrived > 0 && w.arrived == w.left && w.wrong() == 0,
		Detail: fmt.Sprintf("%d %s came to the director and %d left it, %d lost or changed otherwise", w.arrived, what, w.left, w.wrong()),
	}
}

// translatedChecks are what is promised of methods that translate in place of direct
// routing's unchanged packets and of replies that bypass the director.
func (e *evidence) translatedChecks() []Check {
	t := e.translated
	through := Check{
		Name: "replies-through-director",
		OK:   t.repliesAtClient > 0 && t.untranslated == 0 && t.replies.left == t.repliesAtClient && t.fromDirector == t.repliesAtClient,
		Detail: fmt.Sprintf("%d reply packets reached the client, %d of them not from the service's address and port; %d came through the director",
			t.repliesAtClient, t.untranslated, t.replies.left),
	}
	return []Check{
		through,
		t.requests.check("requests-translated", "packets"),
		t.replies.check("replies-translated", "replies"),
		e.serversSawThemselves(),
	}
}

// serversSawThemselves wants the real server's own address and port at the real server, and
// there the client's own, or with FullNAT a local address.
func (e *evidence) serversSawThemselves() Check {
	t := e.traffic
	name, whose := "servers-saw-client-and-themselves", "the client's own address"
	if e.method == FullNAT {
		name, whose = "servers-saw-local-address-and-themselves", "the client at "+familyOf(t.service.Addr()).LocalAddress().String()
	}
	return Check{
		Name: name,
		OK:   t.answered > 0 && t.misled == 0,
		Detail: fmt.Sprintf("in %d of %d connections the server had %s, and its own with port %d",
			t.answered-t.misled, t.answered, whose, e.method.ServerPort(t.service.Port())),
	}
}
