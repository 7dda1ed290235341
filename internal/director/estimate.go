package director

import (
	"sync"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// estimateRetention is for how many intervals the estimate of a server outlives
// it: as long as IPVS keeps a removed server with its counters, 120 s.
const estimateRetention = 61

// An estimate is the running average of one service's or server's counters, in
// the arithmetic of the kernel (net/netfilter/ipvs/ip_vs_est.c): integers with
// 10 fractional bits, 5 for bytes, of an interval of two seconds, the newest
// interval with weight 1/4.
type estimate struct {
	last                          lvs.Counters
	connections, inPackets        int64
	outPackets, inBytes, outBytes int64
	intervalsSinceLastSeen        int
}

// interval takes the counters at the end of an interval.
func (e *estimate) interval(now lvs.Counters) {
	if now.Connections < e.last.Connections || now.InPackets < e.last.InPackets || now.InBytes < e.last.InBytes {
		e.last = lvs.Counters{} // the service was deleted and added again
	}
	came := now.Sub(e.last)
	e.last = now
	e.intervalsSinceLastSeen = 0
	average(&e.connections, came.Connections<<9)
	average(&e.inPackets, came.InPackets<<9)
	average(&e.outPackets, came.OutPackets<<9)
	average(&e.inBytes, came.InBytes<<4)
	average(&e.outBytes, came.OutBytes<<4)
}

func average(a *int64, rate uint64) { *a += (int64(rate) - *a) >> 2 }

func (e *estimate) rates() lvs.Rates {
	return lvs.Rates{
		Connections: uint64(e.connections+0x1ff) >> 10,
		InPackets:   uint64(e.inPackets+0x1ff) >> 10,
		OutPackets:  uint64(e.outPackets+0x1ff) >> 10,
		InBytes:     uint64(e.inBytes+0xf) >> 5,
		OutBytes:    uint64(e.outBytes+0xf) >> 5,
	}
}

// A serverID names a real server among all services. That of a service itself
// has the zero RealServerKey.
type serverID struct {
	service lvs.ServiceKey
	server  lvs.RealServerKey
}

// An Estimator keeps the rates of all services and servers, as the kernel's does. It is safe
// for concurrent use.
type Estimator struct {
	mu        sync.Mutex
	estimates map[serverID]*estimate
}

// NewEstimator returns an estimator that counts from what the services have
// counted already.
func NewEstimator(services []lvs.ServiceStatus) *Estimator {
	e := &Estimator{estimates: map[serverID]*estimate{}}
	visitCounters(services, func(id serverID, c lvs.Counters, _ *lvs.Rates) {
		e.estimates[id] = &estimate{last: c}
	})
	return e
}

// Interval takes the services as they are at the end of an interval, which is supposed to
// have been of two seconds.
func (e *Estimator) Interval(services []lvs.ServiceStatus) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, known := range e.estimates {
		known.intervalsSinceLastSeen++
		if known.intervalsSinceLastSeen > estimateRetention {
			delete(e.estimates, id)
		}
	}
	visitCounters(services, func(id serverID, c lvs.Counters, _ *lvs.Rates) {
		known, ok := e.estimates[id]
		if !ok {
			known = &estimate{}
			e.estimates[id] = known
		}
		known.interval(c)
	})
}

// Fill sets the rates of services to those of the last interval and of those before.
func (e *Estimator) Fill(services []lvs.ServiceStatus) {
	e.mu.Lock()
	defer e.mu.Unlock()
	visitCounters(services, func(id serverID, _ lvs.Counters, rates *lvs.Rates) {
		if known, ok := e.estimates[id]; ok {
			*rates = known.rates()
		}
	})
}

// Zero starts the estimates of a service and its servers anew, after its
// counters were zeroed.
func (e *Estimator) Zero(key lvs.ServiceKey) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, known := range e.estimates {
		if id.service == key {
			*known = estimate{}
		}
	}
}

func visitCounters(services []lvs.ServiceStatus, visit func(serverID, lvs.Counters, *lvs.Rates)) {
	for i := range services {
		service := &services[i]
		visit(serverID{service: service.ServiceKey}, service.Counters, &service.Rates)
		for j := range service.Servers {
			server := &service.Servers[j]
			visit(serverID{service.ServiceKey, server.RealServerKey}, server.Counters, &server.Rates)
		}
	}
}
