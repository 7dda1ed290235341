package health

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

const (
	// mostAtOnce bounds the connections that checks have at once.
	mostAtOnce = 4096
	// firstGap is how far the first questions are from one another: all are put soon, but
	// not at a rate that leaves no time for what else there is to do.
	firstGap = 500 * time.Microsecond
	// tick is what the times at which questions are put are multiples of where they are
	// far enough away: those of one tick wake the process once.
	tick = 10 * time.Millisecond
	// soon is within how long a question is put whose server is suspected.
	soon = 50 * time.Millisecond
)

// A Service is one whose health is looked after.
type Service struct {
	lvs.ServiceHealth
	// Members are its real servers; those that have checks are among them.
	Members []lvs.RealServer
	// Down are those that were down already when a former manager ended: they are
	// until their checks say otherwise.
	Down map[lvs.RealServerKey]bool
}

// A Manager puts the questions, and keeps the verdicts. It is safe for concurrent use.
type Manager struct {
	network  Network
	log      *slog.Logger
	changed  func(lvs.ServiceKey)
	notifier *notifier

	context context.Context
	cancel  context.CancelFunc
	epoch   time.Time // of the ticks
	asking  sync.WaitGroup
	slots   chan struct{}

	mu        sync.Mutex
	services  map[lvs.ServiceKey]*service
	questions map[string]*question
	closed    bool
}

// NewManager returns a manager without questions. changed is called, from any goroutine
// and without waiting for the last call to return, when what is in force for a service
// may be something else than before.
func NewManager(network Network, log *slog.Logger, changed func(lvs.ServiceKey)) *Manager {
	m := &Manager{
		network: network, log: log, changed: changed, notifier: newNotifier(log),
		slots: make(chan struct{}, mostAtOnce), epoch: time.Now(),
		services: map[lvs.ServiceKey]*service{}, questions: map[string]*question{},
	}
	m.context, m.cancel = context.WithCancel(context.Background())
	return m
}

// Network returns the network that the manager was given.
func (m *Manager) Network() Network { return m.network }

// Close ends all checks and waits for those that go on; then nobody is called any more.
func (m *Manager) Close() {
	m.cancel()
	m.mu.Lock()
	m.closed = true
	for _, q := range m.questions {
		m.stop(q)
	}
	m.mu.Unlock()
	m.asking.Wait()
	m.notifier.close()
}

// Check returns why one of the checks of a service can't be made. It wraps
// lvs.ErrInvalid.
func Check(want Service) error {
	_, err := describe(Host{}, want)
	return err
}

// A draft is a question before it is known whether there is such a one already.
type draft struct {
	server int
	key    string
	prober *prober
}

// describe returns the questions of a service.
func describe(network Network, want Service) ([]draft, error) {
	members := map[lvs.RealServerKey]lvs.RealServer{}
	for _, member := range want.Members {
		members[member.RealServerKey] = member
	}
	var drafts []draft
	for i, s := range want.Servers {
		member, ok := members[s.RealServerKey]
		if !ok {
			return nil, fmt.Errorf("checks of real server %s of %s: %w", s.RealServerKey, want.ServiceKey, lvs.ErrNoServer)
		}
		for _, check := range s.Checks {
			target, err := targetOf(want.ServiceKey, member, check)
			if err != nil {
				return nil, err
			}
			p, err := newProber(network, check, target)
			if err != nil {
				return nil, fmt.Errorf("real server %s of %s: %w", s.RealServerKey, want.ServiceKey, err)
			}
			key, err := keyOf(check, target)
			if err != nil {
				return nil, fmt.Errorf("check %s: %w", check.Type, err)
			}
			drafts = append(drafts, draft{i, key, p})
		}
	}
	return drafts, nil
}

// Set makes wanted the services that are looked after, instead of those there are.
// Questions that were put before keep their verdicts. It checks all before it changes
// anything, and wraps lvs.ErrInvalid and lvs.ErrNoServer.
func (m *Manager) Set(wanted []Service) error {
	drafts := make([][]draft, len(wanted))
	for i, want := range wanted {
		var err error
		if drafts[i], err = describe(m.network, want); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old, services := m.questions, m.services
	m.questions, m.services = map[string]*question{}, map[lvs.ServiceKey]*service{}
	var fresh []*question
	for i, want := range wanted {
		fresh = append(fresh, m.add(want, drafts[i], old, services[want.ServiceKey])...)
	}
	for key, q := range old {
		if m.questions[key] == nil {
			m.stop(q)
		}
	}
	// Each has its own part of the time, so that they are as far from one another in later
	// rounds, too.
	spread := time.Duration(len(fresh)) * firstGap
	for i, q := range fresh {
		part := float64(min(spread, q.check.Interval)) / float64(len(fresh))
		m.schedule(q, time.Duration((float64(i)+rand.Float64())*part))
	}
	return nil
}

// add looks after one service, and returns the questions that are new. before is what
// it was, or nil.
func (m *Manager) add(want Service, drafts []draft, old map[string]*question, before *service) (fresh []*question) {
	svc := &service{ServiceHealth: want.ServiceHealth, servers: map[lvs.RealServerKey]*server{}}
	if before != nil {
		svc.quorum = before.quorum
	}
	if svc.Quorum == 0 {
		svc.quorum = lvs.QuorumStatus{}
	}
	servers := make([]*server, len(want.Servers))
	for i, s := range want.Servers {
		servers[i] = &server{ServerHealth: s, service: svc}
		svc.servers[s.RealServerKey] = servers[i]
	}
	for _, d := range drafts {
		q := m.questions[d.key]
		if q == nil {
			q = old[d.key]
			if q == nil {
				q = &question{prober: d.prober, key: d.key, state: lvs.HealthUnknown}
				if want.Down[want.Servers[d.server].RealServerKey] {
					q.turn(lvs.HealthDown, CheckFailed, "was down when an earlier director ended")
				}
				fresh = append(fresh, q)
			}
			q.users = map[*server]struct{}{}
			m.questions[d.key] = q
		}
		q.users[servers[d.server]] = struct{}{}
		servers[d.server].questions = append(servers[d.server].questions, q)
	}
	now := time.Now()
	for _, s := range servers {
		s.state, _ = s.judge()
		s.weight, s.since = s.lightest(), now
		if before == nil || before.servers[s.RealServerKey] == nil {
			continue
		}
		was := before.servers[s.RealServerKey]
		s.suspicion, s.suspected = was.suspicion, was.suspected
		if was.state == s.state {
			s.since = was.since
		}
	}
	m.services[want.ServiceKey] = svc
	return fresh
}

// schedule puts a question after a while.
func (m *Manager) schedule(q *question, after time.Duration) {
	if m.closed {
		return
	}
	now := time.Now()
	if after >= 100*tick {
		after -= now.Add(after).Sub(m.epoch) % tick
	}
	q.due = now.Add(after)
	if q.timer == nil {
		q.timer = time.AfterFunc(after, func() { m.run(q) })
		return
	}
	q.timer.Reset(after)
}

// stop puts a question no more.
func (m *Manager) stop(q *question) {
	if q.timer != nil {
		q.timer.Stop()
	}
	q.users = nil
}

// run puts a question, and deals with its answer.
func (m *Manager) run(q *question) {
	m.mu.Lock()
	if q.users == nil || q.asking || m.closed {
		m.mu.Unlock()
		return
	}
	q.asking = true
	m.asking.Add(1)
	m.mu.Unlock()
	defer m.asking.Done()

	begin := time.Now()
	select {
	case m.slots <- struct{}{}:
	case <-m.context.Done():
		return
	}
	result := q.put(m.context)
	<-m.slots
	if m.context.Err() != nil {
		return
	}
	m.mu.Lock()
	q.asking = false
	news := m.take(q, result)
	if q.users != nil {
		m.schedule(q, max(0, q.pause()-time.Since(begin)))
	}
	m.mu.Unlock()
	for _, key := range news {
		m.changed(key)
	}
}

// take notes an answer, and returns the services for which something has changed.
func (m *Manager) take(q *question, r Result) (news []lvs.ServiceKey) {
	fault := q.last.Cause
	turned := q.take(r)
	if r.Cause.ownFault() && fault != r.Cause {
		m.log.Error("check can't be made", "check", q.check.Type, "target", q.target.Address, "realserver", q.target.Server.RealServerKey,
			"cause", r.Cause, "detail", r.Detail)
	}
	now := time.Now()
	for s := range q.users {
		changed := turned && m.turn(s, now)
		if weight := s.lightest(); !equalWeights(weight, s.weight) {
			s.weight, changed = weight, true
		}
		if changed {
			news = append(news, s.service.ServiceKey)
		}
	}
	return news
}

func equalWeights(a, b *uint32) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

// turn looks at a server one of whose questions has come to a verdict, and reports
// whether its state has changed.
func (m *Manager) turn(s *server, now time.Time) bool {
	state, _ := s.judge()
	if state == s.state {
		return false
	}
	was := s.state
	s.state, s.since = state, now
	status := s.status()
	m.log.Info("health", "service", s.service.ServiceKey, "realserver", s.RealServerKey, "state", state,
		"before", was, "cause", status.Cause, "detail", status.Detail)
	transition := lvs.ServerUp
	switch {
	case state == lvs.HealthDown:
		transition = lvs.ServerDown
	case state != lvs.HealthUp, was != lvs.HealthDown:
		return true // nobody has been told that it was down
	}
	m.notifier.tell(s.Notify, Event{
		Time: now, Transition: transition, Service: s.service.ServiceKey.String(), Server: s.RealServerKey.String(),
		Before: string(was), Cause: status.Cause, Detail: status.Detail,
	})
	return true
}

// InForce returns what clients of a service are to be given of the real servers that
// the director was told of, in their order: some with another weight, some not at all,
// and perhaps the sorry server at the end. It also counts the quorum, and tells of it.
func (m *Manager) InForce(key lvs.ServiceKey, told []lvs.RealServer) []lvs.RealServer {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.services[key]
	if s == nil {
		return told
	}
	now := time.Now()
	if s.count(told, now) {
		transition := lvs.QuorumUp
		if s.quorum.Lost {
			transition = lvs.QuorumDown
		}
		m.log.Info("quorum", "service", key, "state", transition, "have", s.quorum.Have, "needed", s.quorum.Needed, "sorry", s.quorum.Sorry)
		m.notifier.tell(s.Notify, Event{
			Time: now, Transition: transition, Service: key.String(),
			Detail: fmt.Sprintf("live servers have weight %d, quorum is %d", s.quorum.Have, s.quorum.Needed),
		})
	}
	return s.inForce(told)
}

// Server returns the health of a real server; the zero value if it has no checks.
func (m *Manager) Server(key lvs.ServiceKey, server lvs.RealServerKey) lvs.HealthStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.services[key]; s != nil {
		if rs := s.servers[server]; rs != nil {
			return rs.status()
		}
	}
	return lvs.HealthStatus{}
}

// Quorum returns the quorum of a service; the zero value if none is asked for.
func (m *Manager) Quorum(key lvs.ServiceKey) lvs.QuorumStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.services[key]; s != nil {
		return s.quorum
	}
	return lvs.QuorumStatus{}
}

// Suspect brings the next checks of a real server forward: its clients seem to get no
// answers, for the reason that is told. It does so once an interval at most.
func (m *Manager) Suspect(key lvs.ServiceKey, server lvs.RealServerKey, reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.services[key]
	if s == nil || s.servers[server] == nil {
		return
	}
	now, suspect := time.Now(), s.servers[server]
	forward := false
	for _, q := range suspect.questions {
		if q.asking || q.state == lvs.HealthDown || now.Sub(q.suspected) < q.check.Interval || q.due.Sub(now) < soon {
			continue
		}
		q.suspected = now
		m.schedule(q, time.Duration(rand.Int64N(int64(soon))))
		forward = true
	}
	if !forward {
		return
	}
	suspect.suspicion, suspect.suspected = reason, now
	m.log.Warn("suspected", "service", key, "realserver", server, "cause", reason)
}
