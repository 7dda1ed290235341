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
	State    ConnectionState
	Expires  time.Duration // until it ends; not negative
	Packets  uint32        // from the client, modulo 2^32
	Bytes    uint64        // IP bytes from the client
}

// A ConnectionState is a connection's state: a TCP state, or the one of UDP.
// The TCP values are those of the kernel (include/net/ip_vs.h).
type ConnectionState uint8

// The states.
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

var stateNames = [...]string{
	"NONE", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT", "TIME_WAIT",
	"CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "SYNACK", "UDP",
}

// String returns the name that ipvsadm -Lc prints.
func (s ConnectionState) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("ConnectionState(%d)", uint8(s))
}
