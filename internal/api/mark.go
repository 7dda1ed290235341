package api

import (
	"context"
	"fmt"
	"math"
	"net/netip"

	"connectrpc.com/connect"

	fairleadv1 "github.com/fairlead-lb/fairlead/api/fairlead/v1"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// MarkRules implements [Director].
func (c *Client) MarkRules(ctx context.Context) ([]lvs.MarkRule, error) {
	response, err := c.service.ListMarkRules(ctx, connect.NewRequest(&fairleadv1.ListMarkRulesRequest{}))
	if err != nil {
		return nil, c.refused(err)
	}
	rules, err := eachFromWire("rules", response.Msg.Rules, saying(markFromWire))
	if err != nil {
		return nil, fmt.Errorf("list mark rules: director answered with %w", err)
	}
	return rules, nil
}

// AddMarkRule implements [Director].
func (c *Client) AddMarkRule(ctx context.Context, rule lvs.MarkRule, position int) error {
	if position < 0 || position > math.MaxInt32 {
		return fmt.Errorf("add mark rule: position %d: %w", position, lvs.ErrRange)
	}
	_, err := c.service.AddMarkRule(ctx, connect.NewRequest(&fairleadv1.AddMarkRuleRequest{
		Rule: markToWire(rule), Position: uint32(position),
	}))
	return c.refused(err)
}

// DeleteMarkRule implements [Director].
func (c *Client) DeleteMarkRule(ctx context.Context, rule lvs.MarkRule) error {
	_, err := c.service.DeleteMarkRule(ctx, connect.NewRequest(&fairleadv1.DeleteMarkRuleRequest{Rule: markToWire(rule)}))
	return c.refused(err)
}

func (h *handler) ListMarkRules(ctx context.Context, _ *connect.Request[fairleadv1.ListMarkRulesRequest]) (
	*connect.Response[fairleadv1.ListMarkRulesResponse], error) {
	rules, err := h.director.MarkRules(ctx)
	return reply(&fairleadv1.ListMarkRulesResponse{Rules: each(rules, markToWire)}, err)
}

func (h *handler) AddMarkRule(ctx context.Context, req *connect.Request[fairleadv1.AddMarkRuleRequest]) (
	*connect.Response[fairleadv1.AddMarkRuleResponse], error) {
	rule, err := markFromWire(req.Msg.Rule)
	if err == nil {
		err = h.director.AddMarkRule(ctx, rule, int(req.Msg.Position))
	}
	return answer[fairleadv1.AddMarkRuleResponse](err)
}

func (h *handler) DeleteMarkRule(ctx context.Context, req *connect.Request[fairleadv1.DeleteMarkRuleRequest]) (
	*connect.Response[fairleadv1.DeleteMarkRuleResponse], error) {
	rule, err := markFromWire(req.Msg.Rule)
	if err == nil {
		err = h.director.DeleteMarkRule(ctx, rule)
	}
	return answer[fairleadv1.DeleteMarkRuleResponse](err)
}

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
