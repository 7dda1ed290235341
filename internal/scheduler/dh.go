package scheduler

// HashTableSlots is how many slots the tables of dh and sh have: the kernel's
// default (CONFIG_IP_VS_DH_TAB_BITS and CONFIG_IP_VS_SH_TAB_BITS are 8).
const HashTableSlots = 256

// DH returns the table of destination hashing for a list of that many servers:
// for each slot the position of its server in the list, one server after the
// other, whatever their weights are (ip_vs_dh.c, ip_vs_dh_reassign). It is nil
// for an empty list.
func DH(servers int) []int {
	if servers == 0 {
		return nil
	}
	table := make([]int, HashTableSlots)
	for slot := range table {
		table[slot] = slot % servers
	}
	return table
}
