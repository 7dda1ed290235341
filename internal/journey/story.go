package journey

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// ErrNoConnection: the frames hold no new TCP connection from the client to the
// virtual service.
var ErrNoConnection = errors.New("no connection was seen")

// A Host is one that may take part in a journey.
type Host struct {
	Name      string
	MAC       lvs.MAC
	Addresses []netip.Addr // its own; a VIP is nobody's
}

// A Cast says who is who. Client, Director and Router are names of Hosts; every
// other host is a real server. A host with several interfaces is there once for
// each.
type Cast struct {
	Client   string
	Director string
	Router   string // between the client and the director; "" if there is none
	Hosts    []Host
	Service  netip.AddrPort
}

// A Step is one frame at one host.
type Step struct {
	Step      int       `json:"step"`
	At        string    `json:"at"`
	Direction Direction `json:"direction"`
	What      string    `json:"what"` // "ARP request", "SYN+ACK"
	// The hosts are the names of those that have the MAC addresses; "everyone"
	// for broadcast, "multicast", or "" if unknown.
	SourceMAC       string     `json:"src_mac"`
	SourceHost      string     `json:"src_host"`
	DestinationMAC  string     `json:"dst_mac"`
	DestinationHost string     `json:"dst_host"`
	Source          netip.Addr `json:"src_ip"`
	Destination     netip.Addr `json:"dst_ip"`
	// The ports are 0 where there are none.
	SourcePort      uint16 `json:"src_port,omitempty"`
	DestinationPort uint16 `json:"dst_port,omitempty"`
	// Tunnel is what the packet is wrapped in, "" if nothing, and from where to where
	// the outer packet goes.
	Tunnel           string      `json:"tunnel,omitempty"`
	OuterSource      *netip.Addr `json:"outer_src_ip,omitempty"`
	OuterDestination *netip.Addr `json:"outer_dst_ip,omitempty"`

	// Time is when the frame was seen.
	Time time.Time `json:"-"`
	// Detail is particular to this packet: "who has 192.0.2.100?".
	Detail string `json:"-"`
	// Of a packet that came in at this host before and leaves it again, which
	// MAC addresses are not what they were.
	NewSourceMAC      bool `json:"-"`
	NewDestinationMAC bool `json:"-"`
	// And which address or port is not.
	NewSource      bool `json:"-"`
	NewDestination bool `json:"-"`
}

// A Story is the journey of one connection.
type Story struct {
	Client  netip.AddrPort
	Virtual netip.AddrPort
	// ClientAtServer and Real are the ends of the connection as the real server has them:
	// Client and Virtual unless the director translates. They are zero if none got it.
	ClientAtServer netip.AddrPort
	Real           netip.AddrPort
	// Server is the real server that the connection went to; "" if none got it.
	Server string
	Steps  []Step
}

// A seen is a frame with what it carries.
type seen struct {
	Frame
	packet Packet
}

// Tell tells the journey of the first TCP connection from the client to the
// service: its frames at the client, the director and its real server, and the
// ARP or neighbour discovery between these three that came before its end. A
// router between them takes part as they do.
// It returns ErrNoConnection if there is none.
func Tell(frames []Frame, cast Cast) (Story, error) {
	all := make([]seen, 0, len(frames))
	for _, frame := range inOrder(frames) {
		all = append(all, seen{frame, Decode(frame.Data)})
	}
	story := Story{Virtual: cast.Service}
	first, ok := opening(all, cast)
	if !ok {
		return story, fmt.Errorf("journey to %s: %w", cast.Service, ErrNoConnection)
	}
	story.Client = netip.AddrPortFrom(first.packet.Source, first.packet.SourcePort)
	all = story.cutAtReuse(all, first)
	story.findServer(all, cast, first)

	path := map[string]bool{cast.Client: true, cast.Director: true, cast.Router: true, story.Server: true}
	delete(path, "")
	addresses := cast.addressesOf(path)
	end := story.end(all)
	arrived := map[arrival]Packet{}
	for _, s := range all {
		p := s.packet
		resolves := p.Resolves() && addresses[p.Target] && path[cast.hostOf(p.SourceMAC)]
		if !path[s.Host] || s.Time.After(end) || !resolves && !story.has(p) {
			continue
		}
		step := cast.step(s)
		step.Step = len(story.Steps) + 1
		key := arrival{s.Host, p.TranslatedContent()}
		if s.Direction == In {
			arrived[key] = p
		} else if before, ok := arrived[key]; ok && !resolves {
			step.NewSourceMAC = before.SourceMAC != p.SourceMAC
			step.NewDestinationMAC = before.DestinationMAC != p.DestinationMAC
			step.NewSource = before.From() != p.From()
			step.NewDestination = before.To() != p.To()
		}
		story.Steps = append(story.Steps, step)
	}
	return story, nil
}

// An arrival names a packet that came in at a host.
type arrival struct{ host, content string }

// opening returns the first SYN that the client sends to the service.
func opening(all []seen, cast Cast) (seen, bool) {
	for _, s := range all {
		if s.Host == cast.Client && s.Direction == Out && opens(s.packet) &&
			s.packet.To() == cast.Service {
			return s, true
		}
	}
	return seen{}, false
}

func opens(p Packet) bool { return p.Kind == TCP && p.Flags&(SYN|ACK) == SYN }

// cutAtReuse leaves out what comes after the client has taken the same port for
// another connection.
func (st Story) cutAtReuse(all []seen, first seen) []seen {
	for i, s := range all {
		if opens(s.packet) && st.has(s.packet) && s.packet.Sequence != first.packet.Sequence {
			return all[:i]
		}
	}
	return all
}

// has reports whether p belongs to the connection, in either direction.
func (st Story) has(p Packet) bool {
	return p.Kind == TCP && (p.isBetween(st.Client, st.Virtual) || p.isBetween(st.ClientAtServer, st.Real))
}

// findServer finds the host that received the connection's SYN and is neither
// client, director nor router. Addresses and ports may be others by then; the sequence
// number is not.
func (st *Story) findServer(all []seen, cast Cast, first seen) {
	for _, s := range all {
		if s.Direction == In && s.Host != cast.Client && s.Host != cast.Director && s.Host != cast.Router &&
			opens(s.packet) && s.packet.Sequence == first.packet.Sequence && s.packet.DestinationMAC == cast.macOf(s.Host) {
			st.Server, st.ClientAtServer, st.Real = s.Host, s.packet.From(), s.packet.To()
			return
		}
	}
}

// end returns when the connection's last frame was seen.
func (st Story) end(all []seen) time.Time {
	var end time.Time
	for _, s := range all {
		if st.has(s.packet) {
			end = s.Time
		}
	}
	return end
}

func (c Cast) step(s seen) Step {
	step := Step{
		At:              s.Host,
		Direction:       s.Direction,
		What:            what(s.packet),
		SourceMAC:       s.packet.SourceMAC.String(),
		SourceHost:      c.hostOf(s.packet.SourceMAC),
		DestinationMAC:  s.packet.DestinationMAC.String(),
		DestinationHost: c.hostOf(s.packet.DestinationMAC),
		Source:          s.packet.Source,
		Destination:     s.packet.Destination,
		SourcePort:      s.packet.SourcePort,
		DestinationPort: s.packet.DestinationPort,
		Time:            s.Time,
		Detail:          detail(s.packet),
	}
	if o := s.packet.Outer; o != nil {
		step.Tunnel, step.OuterSource, step.OuterDestination = o.Tunnel, &o.Source, &o.Destination
	}
	return step
}

func what(p Packet) string {
	switch p.Kind {
	case ARPRequest:
		return "ARP request"
	case ARPReply:
		return "ARP reply"
	case NeighborSolicitation:
		return "neighbor solicitation"
	case NeighborAdvertisement:
		return "neighbor advertisement"
	case TCP:
		return p.Flags.String()
	case UDP:
		return "UDP"
	}
	return "other"
}

// detail says what is particular to this packet, in a few words.
func detail(p Packet) string {
	switch p.Kind {
	case ARPRequest, NeighborSolicitation:
		return fmt.Sprintf("who has %s?", p.Target)
	case ARPReply, NeighborAdvertisement:
		return fmt.Sprintf("%s is here", p.Target)
	}
	if len(p.Payload) == 0 {
		return ""
	}
	line, _, _ := bytes.Cut(p.Payload, []byte("\r\n"))
	if text := string(line); bytes.Contains(line, []byte("HTTP/")) && len(text) <= 24 && isPrintable(text) {
		return text
	}
	return fmt.Sprintf("%d bytes", len(p.Payload))
}

func isPrintable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}

// hostOf returns the name of the host that has the MAC address; see Step.
func (c Cast) hostOf(mac lvs.MAC) string {
	for _, host := range c.Hosts {
		if host.MAC == mac {
			return host.Name
		}
	}
	switch {
	case mac == lvs.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}:
		return "everyone"
	case mac[0]&1 == 1:
		return "multicast"
	}
	return ""
}

func (c Cast) macOf(name string) lvs.MAC {
	for _, host := range c.Hosts {
		if host.Name == name {
			return host.MAC
		}
	}
	return lvs.MAC{}
}

// addressesOf returns the VIP and the addresses of its family that the named
// hosts have.
func (c Cast) addressesOf(names map[string]bool) map[netip.Addr]bool {
	vip := c.Service.Addr()
	addresses := map[netip.Addr]bool{vip: true}
	for _, host := range c.Hosts {
		for _, addr := range host.Addresses {
			if names[host.Name] && addr.Is4() == vip.Is4() {
				addresses[addr] = true
			}
		}
	}
	return addresses
}
