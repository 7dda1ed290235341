package lvs

import (
	"fmt"
	"net/netip"
	"time"
)

// A Connection is one entry of the connection table, as it was read.
type Connection struct {
	Protocol Protocol
	Client   netip.AddrPort
	Virtual  netip.AddrPort
	Server   netip.AddrPort
	// Local is where the client comes from for the server, by FullNAT; else the zero value.
	Local   netip.AddrPort
	State   ConnectionState
	Expires time.Duration // until it ends; not negative
	// Idle is for how long no packet has set its timer, by the timeout that its
	// state has now; 0 for a template, and for what ends later than that says.
	Idle    time.Duration
	Packets uint32 // from the client, modulo 2^32
	Bytes   uint64 // IP bytes from the client
	// Template says that this is a persistence template: Client is the client's
	// network, State is StateNone or StateAssured. That of a firewall mark has
	// protocol 0 and the mark for a virtual address.
	Template bool
	// PersistenceEngine is of a template that is named by more than its client: "sip". PersistenceData is
	// that then, the Call-ID: what the client sent, whatever bytes those are.
	PersistenceEngine string
	PersistenceData   string
}

// A ConnectionState is a connection's state: of TCP, UDP or SCTP. The TCP values
// are those of the kernel (include/net/ip_vs.h); SCTP's have the kernel's order.
type ConnectionState uint8

// The states. StateNone is common to all protocols.
const (
	StateNone ConnectionState = iota
	StateEstablished
	StateSynSent
	StateSynRecv
	StateFinWait
	StateTimeWait
	StateClose
	StateCloseWait
	StateLastAck
	StateListen
	StateSynAck
	StateUDP
)

// The states of SCTP.
const (
	StateSCTPInit1 ConnectionState = iota + 16
	StateSCTPInit
	StateSCTPCookieSent
	StateSCTPCookieReplied
	StateSCTPCookieWait
	StateSCTPCookie
	StateSCTPCookieEchoed
	StateSCTPEstablished
	StateSCTPShutdownSent
	StateSCTPShutdownReceived
	StateSCTPShutdownAckSent
	StateSCTPRejected
	StateSCTPClosed
)

// StateAssured is of a template one of whose connections was established.
const StateAssured ConnectionState = 255

var stateNames = [...]string{
	StateNone: "NONE", StateEstablished: "ESTABLISHED", StateSynSent: "SYN_SENT", StateSynRecv: "SYN_RECV",
	StateFinWait: "FIN_WAIT", StateTimeWait: "TIME_WAIT", StateClose: "CLOSE", StateCloseWait: "CLOSE_WAIT",
	StateLastAck: "LAST_ACK", StateListen: "LISTEN", StateSynAck: "SYNACK", StateUDP: "UDP",

	StateSCTPInit1: "INIT1", StateSCTPInit: "INIT", StateSCTPCookieSent: "C-SENT",
	StateSCTPCookieReplied: "C-REPLIED", StateSCTPCookieWait: "C-WAIT", StateSCTPCookie: "COOKIE",
	StateSCTPCookieEchoed: "C-ECHOED", StateSCTPEstablished: "ESTABLISHED", StateSCTPShutdownSent: "S-SENT",
	StateSCTPShutdownReceived: "S-RECEIVED", StateSCTPShutdownAckSent: "S-ACK-SENT",
	StateSCTPRejected: "REJECTED", StateSCTPClosed: "CLOSED",
}

// String returns the name that ipvsadm -Lc prints.
func (s ConnectionState) String() string {
	if s == StateAssured {
		return "ASSURED"
	}
	if int(s) < len(stateNames) && stateNames[s] != "" {
		return stateNames[s]
	}
	return fmt.Sprintf("ConnectionState(%d)", uint8(s))
}

// ParseConnectionState returns the state of a protocol's connections that has
// that name, or an error that wraps ErrInvalid.
func ParseConnectionState(protocol Protocol, name string) (ConnectionState, error) {
	if name == StateAssured.String() {
		return StateAssured, nil
	}
	for s, known := range stateNames {
		state := ConnectionState(s)
		if known == name && (state == StateNone || (state >= StateSCTPInit1) == (protocol == SCTP)) {
			return state, nil
		}
	}
	return 0, fmt.Errorf("state %q of %s: %w: want one that ipvsadm -Lc names", name, protocol, ErrInvalid)
}
