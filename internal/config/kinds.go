package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// shortReason returns an error of the domain without the word invalid, which says
// nothing beside a place.
func shortReason(err error) string {
	return strings.ReplaceAll(err.Error(), ": "+lvs.ErrInvalid.Error()+":", ":")
}

// integer is a whole number from min to max.
func integer[V int | int32 | uint16 | uint32](min, max V) kind[V] {
	schema := map[string]any{"type": "integer", "minimum": min, "maximum": max}
	return scalar(schema, func(text string) (V, error) {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < int64(min) || n > int64(max) {
			return 0, fmt.Errorf("%s: want a number, %d to %d", quoteShort(text), min, max)
		}
		return V(n), nil
	})
}

func truth() kind[bool] {
	return scalar(map[string]any{"type": "boolean"}, func(text string) (bool, error) {
		switch text {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return false, fmt.Errorf("%s: want true or false", quoteShort(text))
	})
}

// duration is a time from min to max, in whole numbers of unit.
func duration(min, max, unit time.Duration) kind[time.Duration] {
	return scalar(text(`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`), func(text string) (time.Duration, error) {
		d, err := time.ParseDuration(text)
		switch {
		case err != nil:
			return 0, fmt.Errorf("%s: want a time with its unit, like 500ms, 5s or 1h30m", quoteShort(text))
		case d < min || d > max:
			return 0, fmt.Errorf("%s: want a time from %s to %s", text, shortDuration(min), shortDuration(max))
		case d%unit != 0:
			return 0, fmt.Errorf("%s: want whole numbers of %s", text, shortDuration(unit))
		}
		return d, nil
	})
}

// shortDuration writes a duration as people do: 1h, not 1h0m0s.
func shortDuration(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}

// word is one of some words, each of which stands for a value.
func word[V any](what string, words []string, values []V) kind[V] {
	return kind[V]{map[string]any{"enum": words}, func(r *reader, n *node, into *V) {
		i := slices.Index(words, n.text)
		switch {
		case n.kind != scalarNode:
			r.refuse(n, "%s: want one of: %s", describe(n), strings.Join(words, ", "))
		case i < 0:
			r.unknown(n, what, words)
		default:
			*into = values[i]
		}
	}}
}

// name is one of some words that stand for themselves.
func name[V ~string](what string, values []V) kind[V] {
	words := make([]string, 0, len(values))
	for _, v := range values {
		words = append(words, string(v))
	}
	return word(what, words, values)
}

// freeText is any text that is not empty.
func freeText(what string) kind[string] {
	return scalar(map[string]any{"type": "string", "minLength": 1}, func(text string) (string, error) {
		if text == "" {
			return "", fmt.Errorf("it is empty: want %s", what)
		}
		return text, nil
	})
}

func address() kind[netip.Addr] {
	return scalar(text(""), parseAddress)
}

// parseAddress reads an address of one host that others can reach.
func parseAddress(text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%s: want an address, like 192.0.2.10 or 2001:db8::10", quoteShort(text))
	}
	return addr, checkAddress(addr)
}

func checkAddress(addr netip.Addr) error {
	switch lvs.FaultOf(addr) {
	case lvs.NoFault:
		return nil
	case lvs.HasZone:
		return fmt.Errorf("%s: want an address without a zone", addr)
	case lvs.MappedIPv4:
		return fmt.Errorf("%s: want the IPv4 address, %s", addr, addr.Unmap())
	case lvs.LinkLocal:
		return fmt.Errorf("%s: a link-local address does not say on which link", addr)
	}
	return fmt.Errorf("%s: want an address of one host", addr)
}

// hostPort is an address with a port or without, which is port 0.
type hostPort struct {
	address netip.Addr
	port    uint16
	anyPort bool // port 0 was given, not none
}

// parseHostPort reads "192.0.2.11", "192.0.2.11:80", "2001:db8::11" and
// "[2001:db8::11]:80".
func parseHostPort(text string) (hostPort, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return hostPort{address: addr}, checkAddress(addr)
	}
	with, err := netip.ParseAddrPort(text)
	if err != nil {
		return hostPort{}, fmt.Errorf("%s: want an address like 192.0.2.11, 192.0.2.11:80, 2001:db8::11 or \"[2001:db8::11]:80\"", quoteShort(text))
	}
	return hostPort{with.Addr(), with.Port(), with.Port() == 0}, checkAddress(with.Addr())
}

func prefix() kind[netip.Prefix] {
	return scalar(text(""), func(text string) (netip.Prefix, error) {
		if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
			return netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		p, err := netip.ParsePrefix(text)
		switch {
		case err != nil:
			return netip.Prefix{}, fmt.Errorf("%s: want an address or a prefix, like 192.0.2.0/24", quoteShort(text))
		case p.Masked() != p:
			return netip.Prefix{}, fmt.Errorf("%s: bits beyond the prefix are set: did you mean %s?", text, p.Masked())
		}
		return p, nil
	})
}
