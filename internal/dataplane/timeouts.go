package dataplane

import (
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// The sysctls that SetTimeouts changes.
const (
	timeoutTCP    = "timeout_established"
	timeoutTCPFin = "timeout_finwait"
	timeoutUDP    = "timeout_udp"
)

// Timeouts returns the timeouts that SetTimeouts changes.
func (p *Plane) Timeouts() lvs.Timeouts {
	seconds := func(name string) time.Duration {
		return time.Duration(p.value(&p.settings().Policy, name)) * time.Second
	}
	return lvs.Timeouts{TCP: seconds(timeoutTCP), TCPFin: seconds(timeoutTCPFin), UDP: seconds(timeoutUDP)}
}

// SetTimeouts changes the director's timeouts that are not 0. A new one applies
// to a connection from its next packet on.
func (p *Plane) SetTimeouts(t lvs.Timeouts) error {
	var changes []lvs.SysctlChange
	for _, c := range []struct {
		name    string
		timeout time.Duration
	}{{timeoutTCP, t.TCP}, {timeoutTCPFin, t.TCPFin}, {timeoutUDP, t.UDP}} {
		if c.timeout != 0 {
			changes = append(changes, lvs.SysctlChange{Name: c.name, Value: int32(c.timeout / time.Second)})
		}
	}
	return p.SetSysctls(lvs.ServiceKey{}, changes)
}
