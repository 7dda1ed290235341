package scheduler

// A WRR is what weighted round robin walks by (ip_vs_wrr.c): each round over the
// list takes the servers whose weight reaches the current weight, which falls
// from Top by Step.
type WRR struct {
	Step uint32 // greatest common divisor of the weights that are not 0; 1 if all are
	Top  uint32 // highest weight, less Step - 1; 0: nobody can be chosen
}

// NewWRR returns the rounds for the weights of a server list.
func NewWRR(weights []uint32) WRR {
	var divisor, highest uint32
	for _, w := range weights {
		divisor = gcd(divisor, w)
		highest = max(highest, w)
	}
	if divisor == 0 {
		return WRR{Step: 1}
	}
	return WRR{Step: divisor, Top: highest - (divisor - 1)}
}

// CarryOver returns the current weight with which a walk goes on, from the head
// of the list, after servers or weights changed (ip_vs_wrr_dest_changed).
func (w WRR) CarryOver(current uint32) uint32 {
	switch {
	case current > w.Top || current == 0:
		return w.Top
	case w.Step > 1:
		return current/w.Step*w.Step + 1
	}
	return current
}

func gcd(a, b uint32) uint32 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
