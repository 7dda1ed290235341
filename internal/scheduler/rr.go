package scheduler

// A Position is where a walk over a server list goes on: the number of servers
// up to and with the last choice. 0 is the head of the list: nobody was chosen
// yet, or the choice is gone.
type Position uint32

// AfterAdd returns the position after a server came in at the head of the list
// (ip_vs_ctl.c adds there): the walk stays behind its last choice.
func (p Position) AfterAdd() Position {
	if p == 0 {
		return 0
	}
	return p + 1
}

// AfterRemove returns the position after the server at index left the list. If
// it was the last choice, the walk falls back to the one before it
// (ip_vs_rr.c, ip_vs_rr_del_dest).
func (p Position) AfterRemove(index int) Position {
	if index < int(p) {
		return p - 1
	}
	return p
}
