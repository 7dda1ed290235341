package lvs

import (
	"fmt"
	"net/netip"
)

// A Question names a packet from a client to a virtual service, to ask what
// would become of it.
type Question struct {
	Protocol Protocol // TCP or UDP
	Client   netip.AddrPort
	Virtual  netip.AddrPort
	// Flags are a TCP segment's.
	Flags TCPFlags
	// Interface is where the packet comes in; "": the director's first.
	Interface string
}

// TCPFlags are the flags of a segment, as in its header.
type TCPFlags uint8

// The flags (RFC 9293, 3.1).
const (
	TCPFin TCPFlags = 1 << iota
	TCPSyn
	TCPRst
	TCPPsh
	TCPAck
	TCPUrg
	TCPEce
	TCPCwr
)

// tcpFlagLetters are the flags from the lowest bit on.
const tcpFlagLetters = "FSRPAUEC"

// ParseTCPFlags reads flags by their letters: F S R P A U E C, in any order. It
// wraps ErrInvalid for any other letter.
func ParseTCPFlags(letters string) (TCPFlags, error) {
	var flags TCPFlags
next:
	for _, letter := range letters {
		for bit, known := range tcpFlagLetters {
			if letter == known {
				flags |= 1 << bit
				continue next
			}
		}
		return 0, fmt.Errorf("TCP flags %q: %w: want letters of %s", letters, ErrInvalid, tcpFlagLetters)
	}
	return flags, nil
}

// String returns the letters that ParseTCPFlags reads.
func (f TCPFlags) String() string {
	var letters []byte
	for bit := range tcpFlagLetters {
		if f&(1<<bit) != 0 {
			letters = append(letters, tcpFlagLetters[bit])
		}
	}
	return string(letters)
}

// An Explanation is what would become of a packet, and why. Nothing of it has
// happened.
type Explanation struct {
	// Verdict is how the packet would leave the data plane.
	Verdict        string
	VerdictKind    string // "normal", "misconfiguration" or "bug"
	VerdictMeaning string
	Action         string // what the driver would be told: "XDP_TX"

	In Frame
	// Out is the frame that would be sent: to the real server, or back with an
	// answer. nil: none would be.
	Out *Frame

	// Service is the virtual service of the packet, nil: there is none. Its
	// Scheduler is "" if it was deleted and its connections are left.
	Service *Service
	// Candidates are the service's real servers as the scheduler would see them,
	// in the order in which it walks them; none if it would not be asked.
	Candidates []Candidate
	Choice     Choice

	// Before and After are the packet's connection; nil: there is none.
	Before *Connection
	After  *Connection
}

// A Choice is the real server that a packet would go to, and what decided on it.
type Choice struct {
	By ChosenBy
	// Server is the zero value when no server was found.
	Server RealServerKey
	// Why is for a person to read; "" when no server was looked for.
	Why string
}

// ChosenBy says what decides where a packet goes.
type ChosenBy string

// What decides.
const (
	ChosenByNobody     ChosenBy = ""           // the packet is for no service, or was not let in
	ChosenByConnection ChosenBy = "connection" // the packet is of a connection
	ChosenByTemplate   ChosenBy = "template"   // persistence: as the client's earlier ones
	ChosenByScheduler  ChosenBy = "scheduler"
	ChosenByHash       ChosenBy = "hash" // the connection table has no room
)

// A Candidate is a real server that a scheduler looks at.
type Candidate struct {
	RealServerKey
	Weight   uint32
	Active   uint32
	Inactive uint32
	// Overloaded: its upper threshold was reached, and it is not yet below its
	// lower one.
	Overloaded bool
	// Load and Divisor are the figure that the scheduler compares, Load/Divisor;
	// Divisor is 0 if it compares none.
	Load    uint64
	Divisor uint32
	Chosen  bool
}

// Usable reports whether schedulers may choose the server.
func (c Candidate) Usable() bool { return c.Weight > 0 && !c.Overloaded }

// Obstacle says why the server is not usable; "" if it is.
func (c Candidate) Obstacle() string {
	switch {
	case c.Weight == 0:
		return "quiesced: weight 0"
	case c.Overloaded:
		return "overloaded"
	}
	return ""
}

// A Frame is what the headers of an Ethernet frame say.
type Frame struct {
	InterfaceIndex int
	InterfaceName  string // "" where only the index is known
	Source         MAC
	Destination    MAC
	VLAN           uint16 // 0: untagged
	SourceIP       netip.Addr
	DestinationIP  netip.Addr
	TTL            uint8 // or hop limit
	Length         int   // bytes, without the checksum of the frame
}
