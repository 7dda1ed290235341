package dataplane

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A Plane has one policy, in its settings, and one more for each service with
// values of its own, which holds the Plane's in place of those that it has not. A
// service and its real servers, those that wait for their return too, tell which
// one holds: noPolicy is the Plane's. That of a service that is gone goes on for
// its connections until another service takes its place.

const noPolicy = 0

// timeoutStates are the sysctls that are timeouts, and the states that they are of.
var timeoutStates = map[string]directorConnectionState{
	"timeout_close":       directorConnectionStateSTATE_CLOSE,
	"timeout_closewait":   directorConnectionStateSTATE_CLOSE_WAIT,
	"timeout_established": directorConnectionStateSTATE_ESTABLISHED,
	"timeout_finwait":     directorConnectionStateSTATE_FIN_WAIT,
	"timeout_lastack":     directorConnectionStateSTATE_LAST_ACK,
	"timeout_listen":      directorConnectionStateSTATE_LISTEN,
	"timeout_synack":      directorConnectionStateSTATE_SYN_ACK,
	"timeout_synrecv":     directorConnectionStateSTATE_SYN_RECV,
	"timeout_synsent":     directorConnectionStateSTATE_SYN_SENT,
	"timeout_timewait":    directorConnectionStateSTATE_TIME_WAIT,
	"timeout_udp":         directorConnectionStateSTATE_UDP,

	"timeout_sctp_closed":            directorConnectionStateSTATE_SCTP_CLOSED,
	"timeout_sctp_cookie":            directorConnectionStateSTATE_SCTP_COOKIE,
	"timeout_sctp_cookie_echoed":     directorConnectionStateSTATE_SCTP_COOKIE_ECHOED,
	"timeout_sctp_cookie_replied":    directorConnectionStateSTATE_SCTP_COOKIE_REPLIED,
	"timeout_sctp_cookie_sent":       directorConnectionStateSTATE_SCTP_COOKIE_SENT,
	"timeout_sctp_cookie_wait":       directorConnectionStateSTATE_SCTP_COOKIE_WAIT,
	"timeout_sctp_established":       directorConnectionStateSTATE_SCTP_ESTABLISHED,
	"timeout_sctp_init":              directorConnectionStateSTATE_SCTP_INIT,
	"timeout_sctp_init1":             directorConnectionStateSTATE_SCTP_INIT1,
	"timeout_sctp_rejected":          directorConnectionStateSTATE_SCTP_REJECTED,
	"timeout_sctp_shutdown_ack_sent": directorConnectionStateSTATE_SCTP_SHUTDOWN_ACK_SENT,
	"timeout_sctp_shutdown_received": directorConnectionStateSTATE_SCTP_SHUTDOWN_RECEIVED,
	"timeout_sctp_shutdown_sent":     directorConnectionStateSTATE_SCTP_SHUTDOWN_SENT,
}

// sysctlSlots are the other sysctls, and where they lie in a policy.
var sysctlSlots = map[string]explainSysctl{
	"am_droprate":               explainSysctlSYSCTL_AM_DROPRATE,
	"amemthresh":                explainSysctlSYSCTL_AMEMTHRESH,
	"conn_reuse_mode":           explainSysctlSYSCTL_CONN_REUSE_MODE,
	"drop_entry":                explainSysctlSYSCTL_DROP_ENTRY,
	"drop_packet":               explainSysctlSYSCTL_DROP_PACKET,
	"expire_nodest_conn":        explainSysctlSYSCTL_EXPIRE_NODEST_CONN,
	"expire_quiescent_template": explainSysctlSYSCTL_EXPIRE_QUIESCENT_TEMPLATE,
	"lblc_expiration":           explainSysctlSYSCTL_LBLC_EXPIRATION,
	"lblcr_expiration":          explainSysctlSYSCTL_LBLCR_EXPIRATION,
	"schedule_icmp":             explainSysctlSYSCTL_SCHEDULE_ICMP,
	"mss_clamp":                 explainSysctlSYSCTL_MSS_CLAMP,
	"secure_tcp":                explainSysctlSYSCTL_SECURE_TCP,
	"sloppy_sctp":               explainSysctlSYSCTL_SLOPPY_SCTP,
	"sloppy_tcp":                explainSysctlSYSCTL_SLOPPY_TCP,
	"slow_start":                explainSysctlSYSCTL_SLOW_START,
}

// noneTimeout is how long an entry is without a state: one that an ICMP error made
// waits so long for its first packet (ip_vs_conn.c, ip_vs_conn_new).
const noneTimeout = 3 * time.Second

func (p *Plane) setDefaultSysctls() error {
	policy := &p.settings().Policy
	policy.Timeouts[directorConnectionStateSTATE_NONE] = p.toTicks(noneTimeout)
	for _, s := range lvs.Sysctls() {
		if err := p.setValue(policy, s.Name, s.Default); err != nil {
			return err
		}
	}
	return nil
}

// setValue stores a value in a policy.
func (p *Plane) setValue(policy *directorPolicy, name string, value int32) error {
	if state, ok := timeoutStates[name]; ok {
		atomic.StoreUint32(&policy.Timeouts[state], p.toTicks(time.Duration(value)*time.Second))
		return nil
	}
	slot, ok := sysctlSlots[name]
	if !ok {
		return fmt.Errorf("sysctl %s: %w: the data plane does not have it", name, lvs.ErrInvalid)
	}
	atomic.StoreInt32(&policy.Sysctls[slot], value)
	return nil
}

func (p *Plane) value(policy *directorPolicy, name string) int32 {
	if state, ok := timeoutStates[name]; ok {
		return int32(p.fromTicks(atomic.LoadUint32(&policy.Timeouts[state])).Round(time.Second) / time.Second)
	}
	return atomic.LoadInt32(&policy.Sysctls[sysctlSlots[name]])
}

// ownBit returns the word of a policy that tells whether a value is the service's
// own, and its bit there.
func ownBit(policy *directorPolicy, name string) (*uint32, uint32) {
	if state, ok := timeoutStates[name]; ok {
		return &policy.OwnTimeouts, 1 << state
	}
	return &policy.OwnSysctls, 1 << sysctlSlots[name]
}

func isOwn(policy *directorPolicy, name string) bool {
	word, bit := ownBit(policy, name)
	return *word&bit != 0
}

func (p *Plane) hasPolicy(svc *service) bool {
	return p.view.services.elements[svc.index].Policy != noPolicy
}

// policyIndex is where the policy of a service lies if it has one.
func (svc *service) policyIndex() uint32 { return svc.index + 1 }

// policyOf returns the policy that a service's connections follow.
func (p *Plane) policyOf(svc *service) *directorPolicy {
	return p.policyAt(p.view.services.elements[svc.index].Policy)
}

func (p *Plane) policyAt(index uint32) *directorPolicy {
	if index == noPolicy {
		return &p.settings().Policy
	}
	return &p.view.policies.elements[index]
}

// forgetPolicy turns the real servers of a service that is gone, and that wait
// for their return, away from its policy, for another service to use its place.
func (p *Plane) forgetPolicy(index uint32) {
	for _, slot := range p.removed {
		if p.view.servers.elements[slot].Policy == index {
			p.setServerPolicy(slot, noPolicy)
		}
	}
}

// Sysctls returns all sysctls of the director, for the zero key, or those that a
// service may have for itself. A mode of defence reads 2 in place of 1, and 1 in
// place of 2, once a sweep has found the table nearly full or not so, as with the
// kernel's. It wraps lvs.ErrNoService.
func (p *Plane) Sysctls(key lvs.ServiceKey) ([]lvs.SysctlValue, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ofService := key != lvs.ServiceKey{}
	policy := &p.settings().Policy
	if ofService {
		svc, err := p.findService(key)
		if err != nil {
			return nil, err
		}
		policy = p.policyOf(svc)
	}
	var values []lvs.SysctlValue
	for _, s := range lvs.Sysctls() {
		if ofService && !s.PerService {
			continue
		}
		values = append(values, lvs.SysctlValue{Sysctl: s, Value: p.value(policy, s.Name), Own: isOwn(policy, s.Name)})
	}
	return values, nil
}

// OwnSysctls returns those of a service that it has for itself; finding out that there are
// none costs next to nothing. It wraps lvs.ErrNoService.
func (p *Plane) OwnSysctls(key lvs.ServiceKey) ([]lvs.SysctlValue, error) {
	p.mu.Lock()
	svc, err := p.findService(key)
	own := err == nil && p.hasPolicy(svc)
	p.mu.Unlock()
	if err != nil || !own {
		return nil, err
	}
	values, err := p.Sysctls(key)
	return slices.DeleteFunc(values, func(v lvs.SysctlValue) bool { return !v.Own }), err
}

// SetSysctls changes sysctls of the director, for the zero key, or those of a
// service: all of them or none. What lvs.CheckSysctlChanges refuses must not be
// given. A new timeout applies to a connection from its next packet on. It wraps
// lvs.ErrNoService.
func (p *Plane) SetSysctls(key lvs.ServiceKey, changes []lvs.SysctlChange) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if (key == lvs.ServiceKey{}) {
		return p.setOwnSysctls(changes)
	}
	svc, err := p.findService(key)
	if err == nil {
		err = p.setServiceSysctls(svc, changes)
	}
	if err != nil {
		return fmt.Errorf("set sysctls of %s: %w", key, err)
	}
	return nil
}

func (p *Plane) setOwnSysctls(changes []lvs.SysctlChange) error {
	next := p.settings().Policy
	for _, c := range changes {
		s, err := lvs.FindSysctl(c.Name)
		if err != nil {
			return err
		}
		if c.Reset {
			c.Value = s.Default
		}
		if err := p.setValue(&next, c.Name, c.Value); err != nil {
			return err
		}
	}
	p.storePolicy(&p.settings().Policy, &next)
	p.defend()
	return nil
}

func (p *Plane) setServiceSysctls(svc *service, changes []lvs.SysctlChange) error {
	next := *p.policyOf(svc)
	for _, c := range changes {
		word, bit := ownBit(&next, c.Name)
		if c.Reset {
			*word &^= bit
			continue
		}
		if err := p.setValue(&next, c.Name, c.Value); err != nil {
			return err
		}
		*word |= bit
	}
	p.inherit(&next)
	policy := &p.view.policies.elements[svc.policyIndex()]
	p.storePolicy(policy, &next)
	index := svc.policyIndex()
	if policy.OwnTimeouts == 0 && policy.OwnSysctls == 0 {
		index = noPolicy
	}
	p.followPolicy(svc, index)
	p.defend()
	return nil
}

// inherit gives a service's policy the director's values in place of those that
// are not its own.
func (p *Plane) inherit(policy *directorPolicy) {
	from := &p.settings().Policy
	for state := range policy.Timeouts {
		if policy.OwnTimeouts&(1<<state) == 0 {
			policy.Timeouts[state] = from.Timeouts[state]
		}
	}
	for slot := range policy.Sysctls {
		if policy.OwnSysctls&(1<<slot) == 0 {
			policy.Sysctls[slot] = from.Sysctls[slot]
		}
	}
}

// storePolicy stores what Go writes of a policy, field by field.
func (p *Plane) storePolicy(policy, next *directorPolicy) {
	for state := range next.Timeouts {
		atomic.StoreUint32(&policy.Timeouts[state], next.Timeouts[state])
	}
	for slot := range next.Sysctls {
		atomic.StoreInt32(&policy.Sysctls[slot], next.Sysctls[slot])
	}
	policy.OwnTimeouts, policy.OwnSysctls = next.OwnTimeouts, next.OwnSysctls
}

// followPolicy turns a service and all its real servers to a policy.
func (p *Plane) followPolicy(svc *service, index uint32) {
	atomic.StoreUint32(&p.view.services.elements[svc.index].Policy, index)
	for _, slot := range svc.servers {
		p.setServerPolicy(slot, index)
	}
	for identity, slot := range p.removed {
		if identity.service == svc.ServiceKey {
			p.setServerPolicy(slot, index)
		}
	}
}

// setServerPolicy tells a real server's connections what they follow, and the
// data plane's short way whether it may be used.
func (p *Plane) setServerPolicy(slot, index uint32) {
	rs := &p.view.servers.elements[slot]
	atomic.StoreUint32(&rs.Policy, index)
	p.turnHop(slot, rs.which())
}

// hasOwnTimeouts reports whether connections of a real server have other timeouts
// than the director's.
func (p *Plane) hasOwnTimeouts(rs *directorRealServer) bool {
	return rs.Policy != noPolicy && p.view.policies.elements[rs.Policy].OwnTimeouts != 0
}
