package ipvsadm

import (
	"bufio"
	"context"
	"io"
	"slices"
	"strings"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A RefusedRule is a line that [ReadRules] can't carry out.
type RefusedRule struct {
	Line   int // from 1
	Text   string
	Reason string
}

// ReadRules returns the state that rules, as ipvsadm-save prints them, lead to in a
// director that had none. Real servers stand in the order of the rules, which is that
// in which schedulers walk them where the rules were saved. A rule that is refused is
// left out.
func ReadRules(ctx context.Context, judge Judge, rules string) (lvs.State, []RefusedRule) {
	return readRules(ctx, judge, &systemNames{}, rules)
}

// A Judge says why a director refuses what it is told, with errors of package lvs.
type Judge struct {
	Service func(lvs.Service) error
	// Server is of one that is to be added to a service, or, if there says so, edited; has
	// says whether the service has it.
	Server func(service lvs.ServiceKey, server lvs.RealServer, has, there bool) error
}

func readRules(ctx context.Context, judge Judge, names resolver, rules string) (lvs.State, []RefusedRule) {
	record := &ruleRecord{judge: judge}
	var reason strings.Builder
	inv := &invocation{
		ctx: ctx, names: names, stdin: strings.NewReader(""), stdout: bufio.NewWriter(io.Discard), stderr: &reason,
		connect: func(context.Context) (Director, error) { return record, nil },
	}
	var refused []RefusedRule
	for i, text := range strings.Split(rules, "\n") {
		text = strings.TrimSpace(text)
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		reason.Reset()
		if inv.report(inv.runRule(strings.Fields(text))) == statusOK {
			continue
		}
		refused = append(refused, RefusedRule{i + 1, text, firstLineOf(reason.String())})
	}
	return record.State, refused
}

// runRule carries out a command line that changes something, and refuses others.
func (inv *invocation) runRule(words []string) error {
	line, err := parse(inv.ctx, inv.names, words)
	if err != nil {
		return err
	}
	switch line.command {
	case cmdHelp, cmdVersion, cmdList, cmdSave, cmdRestore:
		return &failure{status: statusUsage, text: "it is no rule"}
	}
	return inv.runLine(words, true)
}

func firstLineOf(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

// A ruleRecord is a director that remembers what it is told.
type ruleRecord struct {
	lvs.State
	judge Judge
}

var _ Director = (*ruleRecord)(nil)

func (r *ruleRecord) at(key lvs.ServiceKey) int {
	return slices.IndexFunc(r.State.Services, func(s lvs.ServiceState) bool { return s.ServiceKey == key })
}

func status(s lvs.ServiceState) lvs.ServiceStatus {
	all := lvs.ServiceStatus{Service: s.Service}
	for _, server := range s.Servers {
		all.Servers = append(all.Servers, lvs.RealServerStatus{RealServer: server})
	}
	return all
}

// Services implements [Director].
func (r *ruleRecord) Services(context.Context) ([]lvs.ServiceStatus, error) {
	var all []lvs.ServiceStatus
	for _, s := range r.State.Services {
		all = append(all, status(s))
	}
	return all, nil
}

// Service implements [Director].
func (r *ruleRecord) Service(_ context.Context, key lvs.ServiceKey) (lvs.ServiceStatus, error) {
	i := r.at(key)
	if i < 0 {
		return lvs.ServiceStatus{}, lvs.ErrNoService
	}
	return status(r.State.Services[i]), nil
}

// withMask gives a service that is not persistent the mask that all of those have.
func withMask(s lvs.Service) lvs.Service {
	if s.PersistenceTimeout == 0 {
		s.PersistenceMask = lvs.FullPersistenceMask(s.Address)
	}
	return s
}

// AddService implements [Director].
func (r *ruleRecord) AddService(_ context.Context, s lvs.Service) error {
	if r.at(s.ServiceKey) >= 0 {
		return lvs.ErrServiceExists
	}
	if err := r.judge.Service(s); err != nil {
		return err
	}
	r.State.Services = append(r.State.Services, lvs.ServiceState{Service: withMask(s)})
	return nil
}

// EditService implements [Director].
func (r *ruleRecord) EditService(_ context.Context, s lvs.Service) error {
	i := r.at(s.ServiceKey)
	if i < 0 {
		return lvs.ErrNoService
	}
	if err := r.judge.Service(s); err != nil {
		return err
	}
	r.State.Services[i].Service = withMask(s)
	return nil
}

// DeleteService implements [Director].
func (r *ruleRecord) DeleteService(_ context.Context, key lvs.ServiceKey) error {
	i := r.at(key)
	if i < 0 {
		return lvs.ErrNoService
	}
	r.State.Services = slices.Delete(r.State.Services, i, i+1)
	return nil
}

// Clear implements [Director].
func (r *ruleRecord) Clear(context.Context) error {
	r.State.Services = nil
	return nil
}

// server returns a service, and where a real server of it stands, or -1.
func (r *ruleRecord) server(key lvs.ServiceKey, server lvs.RealServerKey) (*lvs.ServiceState, int, error) {
	i := r.at(key)
	if i < 0 {
		return nil, 0, lvs.ErrNoService
	}
	s := &r.State.Services[i]
	return s, slices.IndexFunc(s.Servers, func(there lvs.RealServer) bool { return there.RealServerKey == server }), nil
}

// AddServer implements [Director].
func (r *ruleRecord) AddServer(_ context.Context, key lvs.ServiceKey, server lvs.RealServer) error {
	s, i, err := r.server(key, server.RealServerKey)
	if err == nil {
		err = r.judge.Server(key, server, i >= 0, false)
	}
	if err != nil {
		return err
	}
	s.Servers = append(s.Servers, server)
	return nil
}

// EditServer implements [Director].
func (r *ruleRecord) EditServer(_ context.Context, key lvs.ServiceKey, server lvs.RealServer) error {
	s, i, err := r.server(key, server.RealServerKey)
	if err == nil {
		err = r.judge.Server(key, server, i >= 0, true)
	}
	if err != nil {
		return err
	}
	s.Servers[i] = server
	return nil
}

// DeleteServer implements [Director].
func (r *ruleRecord) DeleteServer(_ context.Context, key lvs.ServiceKey, server lvs.RealServerKey) error {
	s, i, err := r.server(key, server)
	switch {
	case err != nil:
		return err
	case i < 0:
		return lvs.ErrNoServer
	}
	s.Servers = slices.Delete(s.Servers, i, i+1)
	return nil
}

// Zero implements [Director].
func (r *ruleRecord) Zero(context.Context) error { return nil }

// ZeroService implements [Director].
func (r *ruleRecord) ZeroService(_ context.Context, key lvs.ServiceKey) error {
	if r.at(key) < 0 {
		return lvs.ErrNoService
	}
	return nil
}

// Timeouts implements [Director].
func (r *ruleRecord) Timeouts(context.Context) (lvs.Timeouts, error) { return lvs.Timeouts{}, nil }

// SetTimeouts implements [Director].
func (r *ruleRecord) SetTimeouts(_ context.Context, t lvs.Timeouts) error {
	for _, timeout := range []struct {
		name    string
		seconds int32
	}{
		{"timeout_established", int32(t.TCP.Seconds())}, {"timeout_finwait", int32(t.TCPFin.Seconds())}, {"timeout_udp", int32(t.UDP.Seconds())},
	} {
		if timeout.seconds == 0 {
			continue
		}
		r.Sysctls = slices.DeleteFunc(r.Sysctls, func(s lvs.SysctlSetting) bool { return s.Name == timeout.name })
		r.Sysctls = append(r.Sysctls, lvs.SysctlSetting{Name: timeout.name, Value: timeout.seconds})
	}
	return nil
}

// TableSize implements [Director].
func (r *ruleRecord) TableSize(context.Context) (int, error) { return 0, nil }

// Connections implements [Director].
func (r *ruleRecord) Connections(context.Context, func(lvs.Connection) error) error { return nil }
