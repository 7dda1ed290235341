package savefile

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A clauses reads the words after the first: names, each with a value or none.
type clauses struct {
	words []string
	seen  map[string]bool
}

// next returns the next name, "" after the last.
func (c *clauses) next() (string, error) {
	if len(c.words) == 0 {
		return "", nil
	}
	name := c.words[0]
	c.words = c.words[1:]
	if c.seen[name] {
		return "", fmt.Errorf("%s: given twice", name)
	}
	if c.seen == nil {
		c.seen = map[string]bool{}
	}
	c.seen[name] = true
	return name, nil
}

func (c *clauses) value(name string) (string, error) {
	if len(c.words) == 0 {
		return "", fmt.Errorf("%s: a value is missing after it", name)
	}
	value := c.words[0]
	c.words = c.words[1:]
	return value, nil
}

func (c *clauses) number(name string, min, max uint64) (uint32, error) {
	word, err := c.value(name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(word, 10, 64)
	if err != nil || n < min || n > max {
		return 0, fmt.Errorf("%s %q: want %d to %d", name, word, min, max)
	}
	return uint32(n), nil
}

// parseService reads "KEY scheduler NAME flags A,B persistence SECONDS mask M engine
// E one-packet"; what is left out is as ipvsadm has it.
func parseService(words []string) (lvs.Service, error) {
	key, err := lvs.ParseServiceKey(words[0])
	if err != nil {
		return lvs.Service{}, err
	}
	s := lvs.Service{ServiceKey: key, Scheduler: lvs.DefaultScheduler, PersistenceMask: lvs.FullPersistenceMask(key.Address)}
	var flags []string
	c := clauses{words: words[1:]}
	for {
		name, err := c.next()
		if err != nil {
			return s, err
		}
		var word string
		switch name {
		case "":
			if s.PersistenceTimeout == 0 && c.seen["mask"] {
				return s, fmt.Errorf("mask: want persistence too: no other service has one")
			}
			s.SchedulerFlags, err = s.Scheduler.ParseFlags(flags)
			return s, err
		case "scheduler":
			if word, err = c.value(name); err == nil {
				s.Scheduler, err = parseScheduler(word)
			}
		case "flags":
			word, err = c.value(name)
			flags = strings.Split(word, ",")
		case "persistence":
			var seconds uint32
			seconds, err = c.number(name, 1, lvs.MaxTimeoutSeconds)
			s.PersistenceTimeout = time.Duration(seconds) * time.Second
		case "mask":
			if word, err = c.value(name); err == nil {
				s.PersistenceMask, err = parseMask(key, word)
			}
		case "engine":
			if word, err = c.value(name); err == nil {
				s.PersistenceEngine, err = parseEngine(word)
			}
		case "one-packet":
			s.OnePacket = true
		default:
			err = fmt.Errorf("%q: want scheduler, flags, persistence, mask, engine or one-packet", name)
		}
		if err != nil {
			return s, err
		}
	}
}

// parseServer reads "ADDRESS:PORT METHOD weight N upper N lower N", of a tunnelled
// server with type, port and checksum.
func parseServer(words []string) (lvs.RealServer, error) {
	key, err := parseServerKey(words[0])
	if err != nil {
		return lvs.RealServer{}, err
	}
	s := lvs.RealServer{RealServerKey: key, Method: lvs.DirectRouting, Weight: 1}
	if words = words[1:]; len(words) > 0 {
		if method, ok := find(methodWords, words[0]); ok {
			s.Method, words = method, words[1:]
		}
	}
	c := clauses{words: words}
	for {
		name, err := c.next()
		if err != nil || name == "" {
			return s, err
		}
		tunnelled := s.Method == lvs.Tunnelling
		switch {
		case name == "weight":
			s.Weight, err = c.number(name, 0, math.MaxInt32)
		case name == "upper":
			s.UpperThreshold, err = c.number(name, 0, math.MaxUint32)
		case name == "toa" && s.Method == lvs.FullNAT:
			s.TOA = true
		case name == "lower":
			s.LowerThreshold, err = c.number(name, 0, math.MaxUint32)
		case name == "type" && tunnelled:
			s.Tunnel.Type, err = choice(&c, name, tunnelWords, "ipip, gue or gre")
		case name == "checksum" && tunnelled:
			s.Tunnel.Checksum, err = choice(&c, name, checksumWords, "none, full or remote")
		case name == "port" && tunnelled:
			var port uint32
			port, err = c.number(name, 0, math.MaxUint16)
			s.Tunnel.Port = uint16(port)
		case tunnelled:
			err = fmt.Errorf("%q: want weight, upper, lower, type, port or checksum", name)
		default:
			err = fmt.Errorf("%q: want a forwarding method (route, masq, tunnel, fullnat) after the address, then weight, upper or lower, of fullnat toa too", name)
		}
		if err != nil {
			return s, err
		}
	}
}

// choice reads one of some words.
func choice[T comparable](c *clauses, name string, words map[T]string, allowed string) (T, error) {
	word, err := c.value(name)
	value, ok := find(words, word)
	if err == nil && !ok {
		err = fmt.Errorf("%s %q: want %s", name, word, allowed)
	}
	return value, err
}
