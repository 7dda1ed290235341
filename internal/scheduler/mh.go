package scheduler

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
)

// MaglevSlots is how many slots the table of mh has: the kernel's default
// (CONFIG_IP_VS_MH_TAB_INDEX is 12: the largest prime below 2^12).
const MaglevSlots = 4093

// maglevTurnBits bounds how many slots a server takes before the next one's turn
// (IP_VS_MH_TAB_BITS, half the index).
const maglevTurnBits = 6

// The words of the two keys of ip_vs_mh.c; each key has the same word twice.
const (
	maglevOffsetKey = 2654435761
	maglevSkipKey   = 2654446892
)

// A MaglevServer is what mh reads of a real server.
type MaglevServer struct {
	Address netip.Addr
	Port    uint16
	// FirstWord: no more than that of its IPv6 address is hashed. The kernel does
	// so for a server of a service of IPv4.
	FirstWord bool
	// LastWeight is the last weight that was not 0: a server that was quiesced
	// keeps its slots. 0: it never had another weight.
	LastWeight uint32
}

// MH returns the table of Maglev hashing for a list of servers: for each slot
// the position of its server in the list (ip_vs_mh.c,
// ip_vs_mh_build_lookup_table). It is nil if no server ever had a weight.
//
// The order of the list decides who wins a slot that several want.
func MH(servers []MaglevServer) []int {
	turns := maglevTurns(servers)
	if turns == nil {
		return nil
	}
	walks := make([]maglevWalk, len(servers))
	for i, s := range servers {
		walks[i] = newMaglevWalk(s)
	}
	table := make([]int, MaglevSlots)
	for slot := range table {
		table[slot] = -1
	}
	for filled := 0; ; {
		for i := range walks {
			for range turns[i] {
				table[walks[i].next(table)] = i
				if filled++; filled == MaglevSlots {
					return table
				}
			}
		}
	}
}

// StableMH is MH for any order of the list: it walks the servers by address and
// port. Directors that learnt the same servers in different orders agree.
func StableMH(servers []MaglevServer) []int {
	order := make([]int, len(servers))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(servers[a].Address.Compare(servers[b].Address), cmp.Compare(servers[a].Port, servers[b].Port))
	})
	sorted := make([]MaglevServer, len(servers))
	for i, position := range order {
		sorted[i] = servers[position]
	}
	table := MH(sorted)
	for slot, i := range table {
		table[slot] = order[i]
	}
	return table
}

// maglevTurns returns how many slots each server takes at its turn; nil if none
// does. A server with a weight takes at least one.
func maglevTurns(servers []MaglevServer) []uint32 {
	var divisor, heaviest uint32
	for _, s := range servers {
		divisor = gcd(divisor, s.LastWeight)
		heaviest = max(heaviest, s.LastWeight)
	}
	if divisor == 0 {
		return nil
	}
	shift := max(bits.Len32(heaviest/divisor)-maglevTurnBits, 0)
	turns := make([]uint32, len(servers))
	for i, s := range servers {
		if s.LastWeight != 0 {
			turns[i] = max(s.LastWeight/divisor>>shift, 1)
		}
	}
	return turns
}

// A maglevWalk visits every slot of the table once, in an order of the server's
// own.
type maglevWalk struct{ slot, skip uint32 }

func newMaglevWalk(s MaglevServer) maglevWalk {
	word := foldAddress(s.Address)
	if s.FirstWord {
		word = binary.BigEndian.Uint32(s.Address.AsSlice())
	}
	word += uint32(s.Port)
	return maglevWalk{
		slot: hsiphash(word, maglevOffsetKey) % MaglevSlots,
		skip: hsiphash(word, maglevSkipKey)%(MaglevSlots-1) + 1,
	}
}

// next returns the next free slot, which the caller fills.
func (w *maglevWalk) next(table []int) uint32 {
	for table[w.slot] >= 0 {
		w.slot = (w.slot + w.skip) % MaglevSlots
	}
	return w.slot
}

// foldAddress returns an IPv4 address, or the four words of an IPv6 address
// combined, as the kernel's schedulers hash it.
func foldAddress(addr netip.Addr) uint32 {
	var fold uint32
	for b := addr.AsSlice(); len(b) > 0; b = b[4:] {
		fold ^= binary.BigEndian.Uint32(b)
	}
	return fold
}

// hsiphash is the kernel's hash of one 32-bit word on a 64-bit machine
// (lib/siphash.c): the lower half of SipHash-1-3, whose key is word, word.
func hsiphash(word uint32, key uint64) uint32 {
	const initial0, initial1 = 0x736f6d6570736575, 0x646f72616e646f6d
	const initial2, initial3 = 0x6c7967656e657261, 0x7465646279746573
	v := sipState{initial0 ^ key, initial1 ^ key, initial2 ^ key, initial3 ^ key}
	last := uint64(4)<<56 | uint64(word)
	v[3] ^= last
	v.round()
	v[0] ^= last
	v[2] ^= 0xff
	for range 3 {
		v.round()
	}
	return uint32(v[0] ^ v[1] ^ v[2] ^ v[3])
}

type sipState [4]uint64

func (v *sipState) round() {
	v[0] += v[1]
	v[1] = bits.RotateLeft64(v[1], 13) ^ v[0]
	v[0] = bits.RotateLeft64(v[0], 32)
	v[2] += v[3]
	v[3] = bits.RotateLeft64(v[3], 16) ^ v[2]
	v[0] += v[3]
	v[3] = bits.RotateLeft64(v[3], 21) ^ v[0]
	v[2] += v[1]
	v[1] = bits.RotateLeft64(v[1], 17) ^ v[2]
	v[2] = bits.RotateLeft64(v[2], 32)
}
