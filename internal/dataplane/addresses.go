package dataplane

// An addressIndex finds the slots of real servers with an address. Those that are free are
// found at the last one that they had.
type addressIndex map[directorAddress]map[uint32]struct{}

// move has a slot found at another address.
func (x addressIndex) move(slot uint32, from, to directorAddress) {
	delete(x[from], slot)
	if len(x[from]) == 0 {
		delete(x, from)
	}
	if x[to] == nil {
		x[to] = map[uint32]struct{}{}
	}
	x[to][slot] = struct{}{}
}
