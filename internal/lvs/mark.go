package lvs

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// A MarkRule says which packets carry a firewall mark: those of which everything
// holds that it asks for. Netfilter's marks come too late for XDP.
type MarkRule struct {
	// Mark is not 0.
	Mark uint32
	// Protocol is 0 for any.
	Protocol Protocol
	// Source and Destination are prefixes without host bits; the zero value is any
	// address of either family.
	Source      netip.Prefix
	Destination netip.Prefix
	// SourcePorts and DestinationPorts are AllPorts for any.
	SourcePorts      PortRange
	DestinationPorts PortRange
}

// A PortRange is the ports from First to Last, both of which belong to it.
type PortRange struct{ First, Last uint16 }

// AllPorts are 0 to 65535.
var AllPorts = PortRange{0, 65535}

// ParsePortRange reads "80", "6000-6100" or "any". It wraps ErrInvalid.
func ParsePortRange(text string) (PortRange, error) {
	if text == "any" {
		return AllPorts, nil
	}
	first, last, isRange := strings.Cut(text, "-")
	if !isRange {
		last = first
	}
	from, err := strconv.ParseUint(first, 10, 16)
	if err == nil {
		var to uint64
		if to, err = strconv.ParseUint(last, 10, 16); err == nil && from <= to {
			return PortRange{uint16(from), uint16(to)}, nil
		}
	}
	return PortRange{}, fmt.Errorf("ports %q: %w: want a port, a range like 6000-6100 whose first is not above its last, or any", text, ErrInvalid)
}

// String returns what ParsePortRange reads.
func (r PortRange) String() string {
	switch {
	case r == AllPorts:
		return "any"
	case r.First == r.Last:
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// Check returns why no director takes the rule, nil if there is no reason. What
// it returns wraps ErrInvalid.
func (r MarkRule) Check() error {
	switch {
	case r.Mark == 0:
		return fmt.Errorf("mark 0: %w: want 1 to 4294967295; 0 is no mark", ErrInvalid)
	case r.Protocol != 0 && r.Protocol != TCP && r.Protocol != UDP && r.Protocol != SCTP:
		return fmt.Errorf("protocol %s: %w: want TCP, UDP, SCTP or any", r.Protocol, ErrInvalid)
	case r.SourcePorts.First > r.SourcePorts.Last, r.DestinationPorts.First > r.DestinationPorts.Last:
		return fmt.Errorf("ports: %w: the first is above the last", ErrInvalid)
	}
	for _, p := range []netip.Prefix{r.Source, r.Destination} {
		switch {
		case p == netip.Prefix{}:
		case !p.IsValid(), p.Addr().Is4In6():
			return fmt.Errorf("prefix %s: %w", p, ErrInvalid)
		case p.Masked() != p:
			return fmt.Errorf("prefix %s: %w: bits beyond the prefix are set; did you mean %s?", p, ErrInvalid, p.Masked())
		}
	}
	if r.Source.IsValid() && r.Destination.IsValid() && r.Source.Addr().Is4() != r.Destination.Addr().Is4() {
		return fmt.Errorf("source %s, destination %s: %w: one is IPv4, the other IPv6; no packet is both", r.Source, r.Destination, ErrInvalid)
	}
	return nil
}
