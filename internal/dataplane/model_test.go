package dataplane

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A slow, obvious director: what the data plane must do, by maps and loops.

type modelFlow struct {
	protocol    lvs.Protocol
	client, vip netip.AddrPort
}

type modelServer struct {
	lvs.RealServer
	service          lvs.ServiceKey
	listed           bool
	overloaded       bool
	active, inactive uint32
	retries          uint32
	counters         lvs.Counters
	idleSince        uint32 // tick since which a removed one has no connections
}

func (s *modelServer) usable() bool { return s.Weight > 0 && !s.overloaded }

// markOverload is of a connection that begins (ip_vs_conn.c, ip_vs_bind_dest).
func (s *modelServer) markOverload() {
	if s.UpperThreshold > 0 && s.active+s.inactive >= s.UpperThreshold {
		s.overloaded = true
	}
}

// unmarkOverload is of one that ends (ip_vs_unbind_dest).
func (s *modelServer) unmarkOverload() {
	total := uint64(s.active + s.inactive)
	upper, lower := uint64(s.UpperThreshold), uint64(s.LowerThreshold)
	switch {
	case lower > 0:
		s.overloaded = s.overloaded && total >= lower
	case upper == 0 || float64(total) < float64(upper)*3/4:
		s.overloaded = false
	}
}

func (s *modelServer) count(active bool, change uint32) {
	if active {
		s.active += change
	} else {
		s.inactive += change
	}
}

type modelConnection struct {
	server  *modelServer
	state   lvs.ConnectionState
	expires uint32 // tick
	packets uint32
	bytes   uint64
}

func (c *modelConnection) active() bool {
	return c.state == lvs.StateEstablished || c.state == lvs.StateSynSent || c.state == lvs.StateSynRecv || c.state == lvs.StateSynAck
}

type modelService struct {
	lvs.Service
	servers  []*modelServer // the newest first
	counters lvs.Counters
	last     *modelServer // rr, wrr: the last choice; nil is the head of the list
	weight   uint32       // wrr: the current weight
}

type model struct {
	now         uint32
	timeouts    map[lvs.ConnectionState]uint32
	services    []*modelService
	known       []*modelServer // listed or waiting for their return
	connections map[modelFlow]*modelConnection
}

func (m *model) service(key lvs.ServiceKey) *modelService {
	i := slices.IndexFunc(m.services, func(s *modelService) bool { return s.ServiceKey == key })
	if i < 0 {
		return nil
	}
	return m.services[i]
}

// --- changes --------------------------------------------------------------

func (m *model) addService(svc lvs.Service) {
	m.services = append(m.services, &modelService{Service: svc})
}

func (m *model) editService(svc lvs.Service) {
	s := m.service(svc.ServiceKey)
	other := s.Scheduler != svc.Scheduler
	s.Service = svc
	if other {
		s.last, s.weight = nil, 0
		m.changed(s)
	}
}

func (m *model) deleteService(key lvs.ServiceKey) {
	for _, rs := range slices.Clone(m.service(key).servers) {
		m.deleteServer(key, rs)
		rs.counters = lvs.Counters{}
	}
	m.services = slices.DeleteFunc(m.services, func(s *modelService) bool { return s.ServiceKey == key })
}

func (m *model) addServer(key lvs.ServiceKey, want lvs.RealServer) {
	s := m.service(key)
	var rs *modelServer
	for _, known := range m.known {
		if known.service == key && known.RealServerKey == want.RealServerKey {
			rs = known
		}
	}
	if rs == nil {
		rs = &modelServer{service: key}
		m.known = append(m.known, rs)
	}
	rs.listed = true
	rs.change(want)
	s.servers = slices.Insert(s.servers, 0, rs)
	m.changed(s)
}

func (s *modelServer) change(want lvs.RealServer) {
	if want.UpperThreshold == 0 || want.UpperThreshold > s.UpperThreshold {
		s.overloaded = false
	}
	s.RealServer = want
}

func (m *model) editServer(rs *modelServer, want lvs.RealServer) {
	rs.change(want)
	m.changed(m.service(rs.service))
}

func (m *model) deleteServer(key lvs.ServiceKey, rs *modelServer) {
	s := m.service(key)
	at := slices.Index(s.servers, rs)
	if s.last == rs {
		s.last = nil
		if at > 0 {
			s.last = s.servers[at-1]
		}
	}
	s.servers = slices.Delete(s.servers, at, at+1)
	rs.listed, rs.idleSince = false, m.now
	m.changed(s)
}

// changed is what wrr does after any change of its servers: it goes on from the head, with a
// current weight that fits (ip_vs_wrr_dest_changed).
func (m *model) changed(s *modelService) {
	if s.Scheduler != lvs.WeightedRoundRobin {
		return
	}
	s.last = nil
	step, top := s.rounds()
	if s.weight > top || s.weight == 0 {
		s.weight = top
	} else if step > 1 {
		s.weight = s.weight/step*step + 1
	}
}

// rounds are the greatest number that divides all weights, and where the current
// weight starts.
func (s *modelService) rounds() (step, top uint32) {
	for _, rs := range s.servers {
		top = max(top, rs.Weight)
	}
	for step = max(top, 1); ; step-- {
		if !slices.ContainsFunc(s.servers, func(rs *modelServer) bool { return rs.Weight%step != 0 }) {
			break
		}
	}
	if top == 0 {
		return 1, 0
	}
	return step, top - (step - 1)
}

func (m *model) zero(key lvs.ServiceKey) {
	s := m.service(key)
	s.counters = lvs.Counters{}
	for _, rs := range s.servers {
		rs.counters = lvs.Counters{}
	}
}

// advance moves the clock and ends what is over.
func (m *model) advance(ticks uint32) (expired int) {
	m.now += ticks
	for flow, c := range m.connections {
		if c.expires < m.now {
			m.end(flow)
			expired++
		}
	}
	return expired
}

// forget takes a removed server out of those that may return.
func (m *model) forget(rs *modelServer) {
	m.known = slices.DeleteFunc(m.known, func(known *modelServer) bool { return known == rs })
}

func (m *model) end(flow modelFlow) {
	m.connections[flow].uncount(m.now)
	delete(m.connections, flow)
}

func (c *modelConnection) uncount(now uint32) {
	c.server.count(c.active(), ^uint32(0))
	c.server.unmarkOverload()
	c.server.idleSince = now
}

// --- packets --------------------------------------------------------------

// packet returns the verdict on a packet and the server that it goes to.
func (m *model) packet(flow modelFlow, event string, syn bool, length int) (string, *modelServer) {
	if len(m.services) == 0 {
		return "pass-no-services", nil
	}
	c := m.connections[flow]
	over := c != nil && syn && (c.state == lvs.StateTimeWait || c.state == lvs.StateClose)
	unanswered := c != nil && syn && c.state == lvs.StateSynRecv
	if c == nil || over {
		admitted, verdict := m.admit(flow, event)
		if over { // counted until then (ip_vs_core.c, ip_vs_in_hook)
			c.uncount(m.now)
			if admitted == nil {
				delete(m.connections, flow)
			}
		}
		if c = admitted; c == nil {
			return verdict, nil
		}
	}
	if !c.server.listed {
		return "drop-server-removed", nil
	}
	if unanswered {
		c.server.retries++
	}
	was := c.active()
	c.state = nextModelState(c.state, event)
	if is := c.active(); is != was {
		c.server.count(was, ^uint32(0))
		c.server.count(is, 1)
	}
	c.expires = m.now + m.timeouts[c.state]
	c.packets++
	c.bytes += uint64(length)
	for _, counters := range []*lvs.Counters{&c.server.counters, &m.service(c.server.service).counters} {
		counters.InPackets++
		counters.InBytes += uint64(length)
	}
	return "forward", c.server
}

func (m *model) admit(flow modelFlow, event string) (*modelConnection, string) {
	key := lvs.ServiceKey{Protocol: flow.protocol, Address: flow.vip.Addr(), Port: flow.vip.Port()}
	s := m.service(key)
	if s == nil {
		return nil, "pass-no-service"
	}
	if flow.protocol == lvs.TCP && event != "syn" {
		return nil, "pass-no-connection"
	}
	rs := s.schedule(flow)
	if rs == nil {
		return nil, "answer-no-server"
	}
	c := &modelConnection{server: rs, state: lvs.StateNone}
	m.connections[flow] = c
	rs.inactive++
	rs.markOverload()
	rs.counters.Connections++
	s.counters.Connections++
	return c, ""
}

// modelStates is the table of ip_vs_proto_tcp.c for a director that sees one
// direction only: from NONE, ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT,
// TIME_WAIT, CLOSE, CLOSE_WAIT, LAST_ACK, LISTEN, SYN_ACK.
var modelStates = map[string][]string{
	"syn": {"SR", "ES", "ES", "SR", "SR", "SR", "SR", "SR", "SR", "SR", "SR"},
	"fin": {"CL", "FW", "SS", "TW", "FW", "TW", "CL", "CW", "LA", "LI", "TW"},
	"ack": {"ES", "ES", "SS", "ES", "FW", "TW", "CL", "CW", "CL", "LI", "ES"},
	"rst": {"CL", "CL", "CL", "SR", "CL", "CL", "CL", "CL", "LA", "LI", "CL"},
}

var modelStateNames = []string{"NO", "ES", "SS", "SR", "FW", "TW", "CL", "CW", "LA", "LI", "SA"}

func nextModelState(state lvs.ConnectionState, event string) lvs.ConnectionState {
	switch event {
	case "udp":
		return lvs.StateUDP
	case "none":
		return lvs.StateClose
	}
	return lvs.ConnectionState(slices.Index(modelStateNames, modelStates[event][state]))
}

// modelEvent is what a segment's flags mean: the first of these counts.
func modelEvent(flags string) string {
	for _, e := range []struct {
		flag rune
		name string
	}{{'R', "rst"}, {'S', "syn"}, {'F', "fin"}, {'A', "ack"}} {
		if slices.Contains([]rune(flags), e.flag) {
			return e.name
		}
	}
	return "none"
}

// --- schedulers -----------------------------------------------------------

// modelSchedulers are those that the model has. twos draws lots; mh, lblc and
// lblcr are held against recordings of the kernel's in test/oracle.
var modelSchedulers = []lvs.Scheduler{
	lvs.RoundRobin, lvs.WeightedRoundRobin, lvs.LeastConnection, lvs.WeightedLeastConnection,
	lvs.ShortestExpectedDelay, lvs.NeverQueue, lvs.WeightedFailover, lvs.WeightedOverflow,
	lvs.DestinationHashing, lvs.SourceHashing,
}

func (s *modelService) schedule(flow modelFlow) *modelServer {
	switch s.Scheduler {
	case lvs.WeightedFailover:
		return s.heaviest(func(*modelServer) bool { return true })
	case lvs.WeightedOverflow:
		return s.heaviest(func(rs *modelServer) bool { return rs.active <= rs.Weight })
	case lvs.DestinationHashing:
		var slots []*modelServer
		for len(s.servers) > 0 && len(slots) < 256 {
			slots = append(slots, s.servers...)
		}
		return hashedServer(slots, flow.vip.Addr())
	case lvs.SourceHashing:
		var slots []*modelServer
		for len(s.servers) > 0 && len(slots) < 256 {
			for _, rs := range s.servers {
				slots = append(slots, slices.Repeat([]*modelServer{rs}, int(max(rs.Weight, 1)))...)
			}
		}
		return hashedServer(slots, flow.client.Addr())
	case lvs.RoundRobin:
		return s.roundRobin()
	case lvs.WeightedRoundRobin:
		return s.weightedRoundRobin()
	case lvs.LeastConnection:
		return s.least(func(rs *modelServer) float64 { return 256*float64(rs.active) + float64(rs.inactive) })
	case lvs.WeightedLeastConnection:
		return s.least(func(rs *modelServer) float64 {
			return (256*float64(rs.active) + float64(rs.inactive)) / float64(rs.Weight)
		})
	case lvs.NeverQueue:
		for _, rs := range s.servers {
			if rs.usable() && rs.active == 0 {
				return rs
			}
		}
	}
	return s.least(func(rs *modelServer) float64 { return (float64(rs.active) + 1) / float64(rs.Weight) })
}

// hashedServer returns the server in the slot of an address, if it is usable.
func hashedServer(slots []*modelServer, addr netip.Addr) *modelServer {
	if len(slots) == 0 {
		return nil
	}
	var fold uint32
	for b := addr.AsSlice(); len(b) > 0; b = b[4:] {
		fold ^= binary.BigEndian.Uint32(b)
	}
	if rs := slots[fold*0x61c88647>>24]; rs.usable() {
		return rs
	}
	return nil
}

// heaviest returns the first of the usable servers with the highest weight of
// those that fit.
func (s *modelService) heaviest(fits func(*modelServer) bool) (found *modelServer) {
	for _, rs := range s.servers {
		if rs.usable() && fits(rs) && (found == nil || rs.Weight > found.Weight) {
			found = rs
		}
	}
	return found
}

// least returns the first of the usable servers with the least load. Loads and
// weights of the tests are small: their quotients differ by more than rounding.
func (s *modelService) least(load func(*modelServer) float64) (found *modelServer) {
	for _, rs := range s.servers {
		if rs.usable() && (found == nil || load(rs) < load(found)) {
			found = rs
		}
	}
	return found
}

// behind is the index after the last choice.
func (s *modelService) behind() int { return slices.Index(s.servers, s.last) + 1 }

func (s *modelService) roundRobin() *modelServer {
	from := s.behind()
	for i := range s.servers {
		if rs := s.servers[(from+i)%len(s.servers)]; rs.usable() {
			s.last = rs
			return rs
		}
	}
	return nil
}

func (s *modelService) weightedRoundRobin() *modelServer {
	step, top := s.rounds()
	if top == 0 {
		return nil
	}
	if !slices.ContainsFunc(s.servers, (*modelServer).usable) {
		s.exhaust(step, top)
		return nil
	}
	for {
		for _, rs := range s.servers[s.behind():] {
			if rs.usable() && rs.Weight >= s.weight {
				s.last = rs
				return rs
			}
		}
		s.last = nil
		if s.weight <= step {
			s.weight = top
		} else {
			s.weight -= step
		}
	}
}

// exhaust leaves the walk where ip_vs_wrr.c does when every server is overloaded.
func (s *modelService) exhaust(step, top uint32) {
	switch {
	case s.last == nil || s.weight > step:
		s.last, s.weight = nil, top
	case top <= step:
		s.weight = top
	default:
		s.weight = 1
	}
}

// ticksOf are the timeouts of tests: those of the plane, shifted by half of a step
// of the model's clock so that nothing ever ends at the moment of a packet.
func ticksOf(p *Plane) map[lvs.ConnectionState]uint32 {
	ticks := map[lvs.ConnectionState]uint32{}
	for state, timeout := range p.settings().Policy.Timeouts {
		if timeout != 0 {
			ticks[lvs.ConnectionState(state)] = timeout/modelStep*modelStep + modelStep/2
		}
	}
	return ticks
}
