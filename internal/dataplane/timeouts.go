package dataplane

import (
	"sync/atomic"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// defaultTimeouts are the kernel's (ip_vs_proto_tcp.c, ip_vs_proto_udp.c).
var defaultTimeouts = map[directorConnectionState]time.Duration{
	directorConnectionStateSTATE_NONE:        2 * time.Second,
	directorConnectionStateSTATE_ESTABLISHED: 15 * time.Minute,
	directorConnectionStateSTATE_SYN_SENT:    2 * time.Minute,
	directorConnectionStateSTATE_SYN_RECV:    time.Minute,
	directorConnectionStateSTATE_FIN_WAIT:    2 * time.Minute,
	directorConnectionStateSTATE_TIME_WAIT:   2 * time.Minute,
	directorConnectionStateSTATE_CLOSE:       10 * time.Second,
	directorConnectionStateSTATE_CLOSE_WAIT:  time.Minute,
	directorConnectionStateSTATE_LAST_ACK:    30 * time.Second,
	directorConnectionStateSTATE_LISTEN:      2 * time.Minute,
	directorConnectionStateSTATE_SYN_ACK:     2 * time.Minute,
	directorConnectionStateSTATE_UDP:         5 * time.Minute,
}

func (p *Plane) setDefaultTimeouts() {
	for state, timeout := range defaultTimeouts {
		p.setTimeout(state, timeout)
	}
}

func (p *Plane) setTimeout(state directorConnectionState, timeout time.Duration) {
	atomic.StoreUint32(&p.settings().Timeouts[state], p.toTicks(timeout))
}

func (p *Plane) timeout(state directorConnectionState) time.Duration {
	return p.fromTicks(atomic.LoadUint32(&p.settings().Timeouts[state])).Round(time.Second)
}

// Timeouts returns the timeouts that SetTimeouts changes.
func (p *Plane) Timeouts() lvs.Timeouts {
	return lvs.Timeouts{
		TCP:    p.timeout(directorConnectionStateSTATE_ESTABLISHED),
		TCPFin: p.timeout(directorConnectionStateSTATE_FIN_WAIT),
		UDP:    p.timeout(directorConnectionStateSTATE_UDP),
	}
}

// SetTimeouts changes the timeouts that are not 0. A new one applies to a
// connection from its next packet on.
func (p *Plane) SetTimeouts(t lvs.Timeouts) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.TCP != 0 {
		p.setTimeout(directorConnectionStateSTATE_ESTABLISHED, t.TCP)
	}
	if t.TCPFin != 0 {
		p.setTimeout(directorConnectionStateSTATE_FIN_WAIT, t.TCPFin)
	}
	if t.UDP != 0 {
		p.setTimeout(directorConnectionStateSTATE_UDP, t.UDP)
	}
	return nil
}
