package scheduler

// SH returns the table of source hashing for a list of servers with these
// weights: for each slot the position of its server in the list. Each server
// has as many slots in a row as its weight says, and with weight 0 one too
// (ip_vs_sh.c, ip_vs_sh_reassign). It is nil for an empty list.
func SH(weights []uint32) []int {
	if len(weights) == 0 {
		return nil
	}
	table := make([]int, HashTableSlots)
	position, taken := 0, uint32(0)
	for slot := range table {
		table[slot] = position
		if taken++; taken >= weights[position] {
			position, taken = (position+1)%len(weights), 0
		}
	}
	return table
}
