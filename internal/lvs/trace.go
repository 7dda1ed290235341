package lvs

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// A TraceFilter says which packets a trace picks, and how many. Its zero value
// picks all of them, without end.
type TraceFilter struct {
	// Protocol is TCP, UDP or SCTP; 0: any, also what is none of them.
	Protocol Protocol
	Client   Endpoint
	Virtual  Endpoint
	// Count packets end the trace; 0: any number.
	Count uint64
	// For is how long the trace goes on; 0: until it is cancelled.
	For time.Duration
}

// An Endpoint picks addresses and ports of one side of packets.
type Endpoint struct {
	// Prefix holds the addresses; the zero Prefix: any.
	Prefix netip.Prefix
	Port   uint16 // 0: any
}

// ParseEndpoint reads ADDRESS, ADDRESS/LENGTH, either with :PORT behind it, or
// :PORT alone for any address. An
// IPv6 address with a port stands in brackets, with its length:
// [2001:db8::/32]:80. Bits behind the length are cleared. It wraps ErrInvalid.
func ParseEndpoint(text string) (Endpoint, error) {
	var e Endpoint
	address, port, withPort := text, "", false
	if inside, ok := strings.CutPrefix(text, "["); ok {
		address, port, ok = strings.Cut(inside, "]")
		if !ok || port != "" && port[0] != ':' {
			return e, invalidEndpoint(text)
		}
		port, withPort = strings.CutPrefix(port, ":")
	} else if strings.Count(text, ":") == 1 {
		address, port, withPort = strings.Cut(text, ":")
	}
	if address != "" || !withPort || text[0] == '[' {
		prefix, err := parsePrefix(address)
		if err != nil {
			return e, invalidEndpoint(text)
		}
		e.Prefix = prefix
	}
	if !withPort {
		return e, nil
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return Endpoint{}, invalidEndpoint(text)
	}
	e.Port = uint16(number)
	return e, nil
}

func parsePrefix(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		prefix, err := netip.ParsePrefix(text)
		return prefix.Masked(), err
	}
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("address %q: %w", text, ErrInvalid)
	}
	addr = addr.Unmap()
	return netip.PrefixFrom(addr, addr.BitLen()), nil
}

func invalidEndpoint(text string) error {
	return fmt.Errorf("%q: %w: want an address like 192.0.2.100, 192.0.2.100:80, :80, 203.0.113.0/24, 2001:db8::100 or [2001:db8::/32]:80", text, ErrInvalid)
}

// String returns what ParseEndpoint reads; "" for any.
func (e Endpoint) String() string {
	switch {
	case e == Endpoint{}:
		return ""
	case !e.Prefix.IsValid():
		return fmt.Sprintf(":%d", e.Port)
	}
	address := e.Prefix.String()
	if e.Prefix.IsSingleIP() {
		address = e.Prefix.Addr().String()
	}
	switch {
	case e.Port == 0:
		return address
	case e.Prefix.Addr().Is6():
		return fmt.Sprintf("[%s]:%d", address, e.Port)
	}
	return fmt.Sprintf("%s:%d", address, e.Port)
}

// A TraceReport is what a trace tells next.
type TraceReport struct {
	// Packet is nil in the first report, which says that the trace has begun, in
	// one that only tells of more lost packets, and in the last one.
	Packet *TracedPacket
	// Lost is how many packets were picked and not told of so far: they went
	// their way, but came too fast for telling. It is brought up to date about
	// once a second, and in the last report.
	Lost uint64
}

// A TracedPacket is a packet that passed the data plane, and what became of it.
type TracedPacket struct {
	// Explanation holds what has happened, as the data plane saw it; a server's
	// figures are those of just before it was chosen.
	Explanation
	Time time.Time
	// Protocol is 0 for a packet that the data plane did not read so far; Client
	// and Virtual are not valid then.
	Protocol Protocol
	Client   netip.AddrPort
	Virtual  netip.AddrPort
	Flags    TCPFlags
	// Omitted is how many candidates are not told.
	Omitted int
	// InData and OutData are the first bytes of the frames, of In.Length and
	// Out.Length bytes.
	InData  []byte
	OutData []byte
}
