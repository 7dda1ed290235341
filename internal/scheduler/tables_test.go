package scheduler

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

func TestDH(t *testing.T) {
	if got := DH(0); got != nil {
		t.Errorf("DH(0) = %v, want none", got)
	}
	for _, servers := range []int{1, 2, 3, 256, 300} {
		table := DH(servers)
		if len(table) != HashTableSlots {
			t.Fatalf("DH(%d) has %d slots", servers, len(table))
		}
		for slot, position := range table {
			if position != slot%servers {
				t.Errorf("DH(%d): slot %d holds %d, want %d", servers, slot, position, slot%servers)
			}
		}
	}
}

func TestSH(t *testing.T) {
	for _, test := range []struct {
		weights []uint32
		first   []int // the first slots
	}{
		{nil, nil},
		{[]uint32{1, 1}, []int{0, 1, 0, 1, 0}},
		{[]uint32{2, 1}, []int{0, 0, 1, 0, 0, 1}},
		{[]uint32{0, 3}, []int{0, 1, 1, 1, 0, 1}}, // weight 0 has a slot
		{[]uint32{0}, []int{0, 0, 0}},
		{[]uint32{2147483647, 1}, []int{0, 0, 0, 0}},
	} {
		table := SH(test.weights)
		if len(test.weights) > 0 && len(table) != HashTableSlots {
			t.Fatalf("SH(%v) has %d slots", test.weights, len(table))
		}
		if got := table[:len(test.first)]; !slices.Equal(got, test.first) {
			t.Errorf("SH(%v) begins %v, want %v", test.weights, got, test.first)
		}
	}
}

func maglevServers(r *rand.Rand, n int) []MaglevServer {
	servers := make([]MaglevServer, n)
	for i := range servers {
		addr := netip.AddrFrom4([4]byte{198, 51, 100, byte(i + 1)})
		if n%2 == 0 {
			addr = netip.AddrFrom16([16]byte{0: 0x20, 1: 0x01, 2: 0x0d, 3: 0xb8, 15: byte(i + 1)})
		}
		servers[i] = MaglevServer{Address: addr, Port: 80, LastWeight: uint32(r.IntN(20))}
	}
	return servers
}

// slowMH fills a table one slot at a time, asking each server for all that it
// prefers, in order.
func slowMH(servers []MaglevServer) []int {
	turns := maglevTurns(servers)
	if turns == nil {
		return nil
	}
	taken := map[uint32]int{}
	for len(taken) < MaglevSlots {
		for i, s := range servers {
			for range turns[i] {
				walk := newMaglevWalk(s)
				for range MaglevSlots {
					if _, ok := taken[walk.slot]; !ok {
						taken[walk.slot] = i
						break
					}
					walk.slot = (walk.slot + walk.skip) % MaglevSlots
				}
			}
		}
	}
	table := make([]int, MaglevSlots)
	for slot, i := range taken {
		table[slot] = i
	}
	return table
}

func TestMH(t *testing.T) {
	r := random(t)
	if got := MH(nil); got != nil {
		t.Error("MH of nobody has a table")
	}
	for range 8 {
		servers := maglevServers(r, 1+r.IntN(9))
		table := MH(servers)
		if !slices.Equal(table, slowMH(servers)) {
			t.Fatalf("MH(%v) is another table than the slow one", servers)
		}
		if table == nil {
			continue
		}
		var sum uint32
		for _, s := range servers {
			sum += s.LastWeight
		}
		for i, s := range servers {
			slots := 0
			for _, position := range table {
				if position == i {
					slots++
				}
			}
			want := float64(MaglevSlots) * float64(s.LastWeight) / float64(sum)
			if float64(slots) < want-20 || float64(slots) > want+20 {
				t.Errorf("%v has %d slots of %v, want about %.0f", s, slots, servers, want)
			}
		}
	}
}

// Directors that learnt the servers in different orders agree, and by mh as the
// kernel has it, they don't.
func TestStableMH(t *testing.T) {
	r := random(t)
	who := func(table []int, servers []MaglevServer) (list []MaglevServer) {
		for _, position := range table {
			list = append(list, servers[position])
		}
		return list
	}
	differ := 0
	for range 20 {
		servers := maglevServers(r, 2+r.IntN(9))
		other := slices.Clone(servers)
		r.Shuffle(len(other), func(i, j int) { other[i], other[j] = other[j], other[i] })
		if !slices.Equal(who(StableMH(servers), servers), who(StableMH(other), other)) {
			t.Errorf("%v and %v have different tables", servers, other)
		}
		if !slices.Equal(who(MH(servers), servers), who(MH(other), other)) {
			differ++
		}
	}
	if differ == 0 {
		t.Error("no order made a difference to mh: the test shows nothing")
	}
}

func TestCacheTimer(t *testing.T) {
	const minute = 10       // ticks
	start := ^uint32(0) - 5 // it wraps
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}) }
	t.Run("what is idle for the expiration goes at a full check", func(t *testing.T) {
		timer := NewCacheTimer(start, minute)
		lastUsed := map[netip.Addr]uint32{addr(1): start, addr(2): start + 100*minute}
		const expiration = 60 * minute
		if got := timer.Run(start+89*minute, expiration, lastUsed); !slices.Equal(got, []netip.Addr{addr(1)}) {
			t.Errorf("after 89 minutes went %v, want the first at minute 60", got)
		}
		if timer.Due(start + 89*minute) {
			t.Error("it is due again at once")
		}
	})
	t.Run("not before that", func(t *testing.T) {
		timer := NewCacheTimer(start, minute)
		lastUsed := map[netip.Addr]uint32{addr(1): start + 1}
		if got := timer.Run(start+89*minute, 60*minute, lastUsed); got != nil {
			t.Errorf("%v went at minute 60, idle for less than that", got)
		}
		if got := timer.Run(start+90*minute, 60*minute, lastUsed); len(got) != 1 {
			t.Errorf("%v went at minute 90, want one", got)
		}
	})
	t.Run("a large cache loses what is idle for six minutes", func(t *testing.T) {
		timer := NewCacheTimer(start, minute)
		lastUsed := map[netip.Addr]uint32{}
		const over = 300
		for i := range cacheMaxEntries + over {
			lastUsed[addr(i)] = start
		}
		if got := timer.Run(start+5*minute, 1e6*minute, lastUsed); got != nil {
			t.Errorf("%d went after five minutes", len(got))
		}
		got := timer.Run(start+6*minute, 1e6*minute, lastUsed)
		if goal := over * 4 / 3; len(got) < goal || len(got) > goal+100 {
			t.Errorf("%d went after six minutes, want %d and the rest of a bucket", len(got), goal)
		}
		if len(lastUsed) != cacheMaxEntries+over-len(got) {
			t.Errorf("%d are left", len(lastUsed))
		}
	})
}
