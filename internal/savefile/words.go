package savefile

import (
	"fmt"
	"net/netip"
	"strconv"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// What both forms of a state write alike.

// Version is that of both forms. A reader takes no other.
const Version = 1

var methodWords = map[lvs.ForwardingMethod]string{
	lvs.Masquerading: "masq", lvs.Local: "local", lvs.Tunnelling: "tunnel", lvs.DirectRouting: "route", lvs.FullNAT: "fullnat",
}

var checksumWords = map[lvs.TunnelChecksum]string{
	lvs.NoChecksum: "none", lvs.Checksum: "full", lvs.RemoteChecksum: "remote",
}

var tunnelWords = map[lvs.TunnelType]string{lvs.IPIP: "ipip", lvs.GUE: "gue", lvs.GRE: "gre"}

// find returns what stands for a word, and whether anything does.
func find[T comparable](words map[T]string, word string) (T, bool) {
	for value, known := range words {
		if known == word {
			return value, true
		}
	}
	var none T
	return none, false
}

func parseScheduler(word string) (lvs.Scheduler, error) {
	s := lvs.Scheduler(word)
	if !s.Known() {
		return s, fmt.Errorf("scheduler %q: want one of %v", word, lvs.Schedulers())
	}
	return s, nil
}

func parseEngine(word string) (string, error) {
	if word != lvs.EngineSIP {
		return "", fmt.Errorf("engine %q: want %s", word, lvs.EngineSIP)
	}
	return word, nil
}

// maskWord returns the mask of a persistent service, "" if it is the default.
func maskWord(s lvs.Service) string {
	switch {
	case s.PersistenceMask == lvs.FullPersistenceMask(s.Address):
		return ""
	case s.Address.Is6():
		return strconv.Itoa(int(s.PersistenceMask))
	}
	m := s.PersistenceMask
	return netip.AddrFrom4([4]byte{byte(m >> 24), byte(m >> 16), byte(m >> 8), byte(m)}).String()
}

func parseMask(key lvs.ServiceKey, word string) (uint32, error) {
	if key.Address.Is6() {
		n, err := strconv.ParseUint(word, 10, 8)
		if err != nil || n < 1 || n > 128 {
			return 0, fmt.Errorf("mask %q: want a prefix length, 1 to 128, for an IPv6 service", word)
		}
		return uint32(n), nil
	}
	addr, err := netip.ParseAddr(word)
	if err != nil || !addr.Is4() {
		return 0, fmt.Errorf("mask %q: want one like 255.255.255.0 for an IPv4 service", word)
	}
	b := addr.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3]), nil
}

func parseServerKey(word string) (lvs.RealServerKey, error) {
	addr, err := netip.ParseAddrPort(word)
	if err != nil || !lvs.IsPlain(addr.Addr()) {
		return lvs.RealServerKey{}, fmt.Errorf("server %q: want an address with a port, like 192.0.2.11:80 or [2001:db8::11]:80", word)
	}
	return lvs.RealServerKey{Address: addr.Addr(), Port: addr.Port()}, nil
}

func parsePeer(word string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(word)
	if err != nil || !lvs.IsPlain(addr) {
		return netip.Addr{}, fmt.Errorf("peer %q: want the other director's own address, like 192.0.2.10", word)
	}
	return addr, nil
}
