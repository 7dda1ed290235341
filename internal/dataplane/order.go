package dataplane

import (
	"fmt"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// OrderServers changes the order in which schedulers walk a service's real servers;
// rr and wrr begin anew at its head. The keys must be those of all its servers, each
// once. It wraps lvs.ErrNoService, lvs.ErrNoServer and lvs.ErrInvalid.
func (p *Plane) OrderServers(key lvs.ServiceKey, order []lvs.RealServerKey) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	svc, err := p.findService(key)
	if err != nil {
		return err
	}
	if len(order) != len(svc.servers) {
		return fmt.Errorf("order the real servers of %s: %w: it has %d, %d were named", key, lvs.ErrInvalid, len(svc.servers), len(order))
	}
	servers := make([]uint32, 0, len(order))
	named := map[lvs.RealServerKey]bool{}
	for _, server := range order {
		at, err := p.findServer(svc, server)
		if err != nil {
			return err
		}
		if named[server] {
			return fmt.Errorf("order the real servers of %s: %w: %s was named twice", key, lvs.ErrInvalid, server)
		}
		named[server] = true
		servers = append(servers, svc.servers[at])
	}
	if err := p.publish(svc, servers, lvs.Counters{}, nil); err != nil {
		return fmt.Errorf("order the real servers of %s: %w", key, err)
	}
	return nil
}
