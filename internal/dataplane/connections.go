package dataplane

import (
	"iter"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// SweepResult is what a sweep found.
type SweepResult struct {
	Expired int // entries that it ended
	Used    int // entries in use
}

// Sweep ends the connections whose time is over, gives their counts back, and
// lets go of what waits for a grace period. It also gives up what the modes of
// defence ask for, and works out what they come to until the next one. It goes through the table in slices
// of about a millisecond each; changes go on meanwhile.
func (p *Plane) Sweep() (SweepResult, error) {
	result, err := p.sweepTable(p.endEarly())
	if err != nil {
		return result, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used = result.Used
	p.defend()
	if err := p.expireCaches(); err != nil {
		return result, err
	}
	if err := p.collectRemoved(); err != nil {
		return result, err
	}
	if err := p.endSlowStarts(); err != nil {
		return result, err
	}
	if err := p.forgetPaths(); err != nil {
		return result, err
	}
	if len(p.limbo) > 0 || len(p.flipped) > 0 {
		return result, p.settle()
	}
	return result, nil
}

// sweepTable sweeps the whole table; what it is given says what ends early.
// Connections end first: with them goes what keeps templates alive.
func (p *Plane) sweepTable(sweep directorSweepRange) (SweepResult, error) {
	sweep.Part = directorSweepPartSWEEP_CONNECTIONS
	result, err := p.sweepPart(sweep)
	if err != nil || !p.hasTemplates() {
		return result, err
	}
	sweep.Part = directorSweepPartSWEEP_TEMPLATES
	templates, err := p.sweepPart(sweep)
	return SweepResult{result.Expired + templates.Expired, result.Used + templates.Used}, err
}

// hasTemplates reports whether there is any: each is counted at its server.
func (p *Plane) hasTemplates() bool {
	for i := range p.view.servers.elements {
		if atomic.LoadUint32(&p.view.servers.elements[i].Persistent) != 0 {
			return true
		}
	}
	return false
}

func (p *Plane) sweepPart(sweep directorSweepRange) (SweepResult, error) {
	var result SweepResult
	groups := uint32(len(p.view.connections.elements))
	for first := uint32(0); first < groups; first += uint32(directorLimitSWEEP_GROUPS) {
		sweep.First = first
		found, err := p.sweepFrom(sweep)
		if err != nil {
			return result, err
		}
		result.Expired += int(found >> 16)
		result.Used += int(found & 0xffff)
	}
	return result, nil
}

// Connections returns the entries of the connection table, in its order. The
// table lives on meanwhile: an entry that comes or goes during the walk may or
// may not be there, but none is ever told half.
func (p *Plane) Connections() iter.Seq[lvs.Connection] {
	return func(yield func(lvs.Connection) bool) {
		now, err := p.now()
		if err != nil {
			return
		}
		for g := range p.view.connections.elements {
			group := &p.view.connections.elements[g]
			for s := range group.Slots {
				entry, ok := readEntry(&group.Slots[s], now)
				if !ok || isReply(&entry) {
					continue
				}
				c := p.connection(&entry, now)
				if isFullNAT(&entry) {
					c.Local = p.localEnd(uint32(g*len(group.Slots)+s), now)
				}
				if !yield(c) {
					return
				}
			}
		}
	}
}

// isReply reports whether an entry is no connection but the one for the replies of a
// masqueraded connection.
func isReply(entry *directorConnection) bool {
	return explainConnectionFlag(entry.Flags)&explainConnectionFlagCONNECTION_REPLY != 0
}

// readEntry copies an entry, if it is live and stayed the same meanwhile.
func readEntry(slot *directorConnection, now uint32) (directorConnection, bool) {
	control := atomic.LoadUint32((*uint32)(&slot.Control))
	if directorControl(control)&directorControlCONTROL_STATUS != directorControlCONTROL_LIVE {
		return directorConnection{}, false
	}
	entry := *slot
	const same = directorControlCONTROL_STATUS | directorControlCONTROL_GENERATION
	again := atomic.LoadUint32((*uint32)(&slot.Control))
	if directorControl(control^again)&same != 0 || int32(entry.Expires-now) <= 0 {
		return directorConnection{}, false
	}
	return entry, true
}

func (p *Plane) connection(entry *directorConnection, now uint32) lvs.Connection {
	rs := &p.view.servers.elements[entry.Server]
	flags := explainConnectionFlag(entry.Flags)
	if flags&explainConnectionFlagCONNECTION_TEMPLATE != 0 {
		return p.template(entry, rs, now)
	}
	return lvs.Connection{
		Protocol: lvs.Protocol(entry.Protocol),
		Client:   netip.AddrPortFrom(fromAddress(entry.Caddr), fromPort(entry.Cport)),
		Virtual:  netip.AddrPortFrom(fromAddress(entry.Vaddr), fromPort(entry.Vport)),
		Server:   netip.AddrPortFrom(fromAddress(rs.Raddr), serverPort(entry, rs)),
		State:    lvs.ConnectionState(entry.State),
		Expires:  p.fromTicks(entry.Expires - now),
		Idle:     p.idle(entry, rs, now),
		Packets:  entry.Packets,
		Bytes:    entry.Bytes,
	}
}

// idle returns for how long the timer of a connection was not set, by the timeout
// that its state has now.
func (p *Plane) idle(entry *directorConnection, rs *directorRealServer, now uint32) time.Duration {
	timeouts := &p.policyAt(rs.Policy).Timeouts
	if int(entry.State) >= len(timeouts) {
		return 0
	}
	since := now + atomic.LoadUint32(&timeouts[entry.State]) - entry.Expires
	return p.fromTicks(uint32(max(int32(since), 0)))
}

// serverPort returns the port that a connection's packets have at the server: its
// own, unless the service has many ports and this is not the one that it is named by.
func serverPort(entry *directorConnection, rs *directorRealServer) uint16 {
	controlled := explainConnectionFlag(entry.Flags)&explainConnectionFlagCONNECTION_CONTROLLED != 0
	ofMark := rs.Service.Protocol == 0
	if rs.Rport == 0 || (entry.Vport != rs.Service.Vport && (controlled || !ofMark)) {
		return fromPort(entry.Vport)
	}
	return fromPort(rs.Rport)
}

// voidPort is what a template that nobody finds any more has for ports
// (ip_vs_conn.c, ip_vs_check_template).
const voidPort = 65535

// template returns a template as IPVS lists it. One that is named by a Call-ID has a hash of that for
// its client's port, and its slot for its bytes; it may end before its Call-ID is read.
func (p *Plane) template(entry *directorConnection, rs *directorRealServer, now uint32) lvs.Connection {
	vport, rport := fromPort(entry.Vport), uint16(0)
	switch {
	case explainConnectionFlag(entry.Flags)&explainConnectionFlagCONNECTION_VOID != 0:
		vport, rport = voidPort, voidPort
	case vport != 0:
		rport = fromPort(rs.Rport)
	}
	state := lvs.StateNone
	if entry.State != 0 {
		state = lvs.StateAssured
	}
	c := lvs.Connection{
		Template: true,
		Protocol: lvs.Protocol(entry.Protocol ^ uint8(directorLimitTEMPLATE_PROTOCOL)),
		Client:   netip.AddrPortFrom(fromAddress(entry.Caddr), 0),
		Virtual:  netip.AddrPortFrom(fromAddress(entry.Vaddr), vport),
		Server:   netip.AddrPortFrom(fromAddress(rs.Raddr), rport),
		State:    state,
		Expires:  p.fromTicks(entry.Expires - now),
	}
	var id directorCallId
	if entry.Cport != 0 && p.maps.CallIds.Lookup(uint32(entry.Bytes), &id) == nil {
		c.PersistenceEngine = lvs.EngineSIP
		c.PersistenceData = string(id.Text[:id.Length])
	}
	return c
}
