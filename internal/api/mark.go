package api

import (
	"net/netip"

	fairleadv1 "github.com/fairlead-lb/fairlead/api/fairlead/v1"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

func markToWire(rule lvs.MarkRule) *fairleadv1.MarkRule {
	return &fairleadv1.MarkRule{
		Mark: rule.Mark, Protocol: fairleadv1.Protocol(rule.Protocol),
		Source: prefixToWire(rule.Source), Destination: prefixToWire(rule.Destination),
		SourcePorts: rule.SourcePorts.String(), DestinationPorts: rule.DestinationPorts.String(),
	}
}

// markFromWire checks the form; whether the rule makes sense is for a director to say.
func markFromWire(wire *fairleadv1.MarkRule) (rule lvs.MarkRule, err error) {
	rule.Mark = wire.GetMark()
	if p := wire.GetProtocol(); p != fairleadv1.Protocol_PROTOCOL_UNSPECIFIED {
		if rule.Protocol, err = parseProtocol("protocol", p); err != nil {
			return lvs.MarkRule{}, err
		}
	}
	if rule.Source, err = prefixFromWire("source", wire.GetSource()); err != nil {
		return lvs.MarkRule{}, err
	}
	if rule.Destination, err = prefixFromWire("destination", wire.GetDestination()); err != nil {
		return lvs.MarkRule{}, err
	}
	if rule.SourcePorts, err = lvs.ParsePortRange(wire.GetSourcePorts()); err != nil {
		return lvs.MarkRule{}, err
	}
	rule.DestinationPorts, err = lvs.ParsePortRange(wire.GetDestinationPorts())
	return rule, err
}

// prefixToWire returns "" for the zero prefix: any address.
func prefixToWire(p netip.Prefix) string {
	if (p == netip.Prefix{}) {
		return ""
	}
	return p.String()
}

func prefixFromWire(field, given string) (netip.Prefix, error) {
	if given == "" {
		return netip.Prefix{}, nil
	}
	p, err := netip.ParsePrefix(given)
	if err != nil {
		return netip.Prefix{}, invalid(field, given, `a prefix, like "192.0.2.0/24"`)
	}
	return p, nil
}
