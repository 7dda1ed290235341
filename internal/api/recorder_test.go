package api

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A recorder is a Director that writes down what it was asked for, and answers
// as it was told.
type recorder struct {
	calls       []string
	refusal     error
	services    []lvs.ServiceStatus
	peers       []lvs.Peer
	reports     []lvs.TraceReport
	state       lvs.State
	connections int
	sent        int
}

func (r *recorder) did(format string, args ...any) error {
	r.calls = append(r.calls, fmt.Sprintf(format, args...))
	return r.refusal
}

func (r *recorder) Status(context.Context) (Status, error) {
	return Status{Version: "v1", TableSize: 4096}, r.did("status")
}
func (r *recorder) Services(context.Context) ([]lvs.ServiceStatus, error) {
	return r.services, r.did("services")
}
func (r *recorder) Service(_ context.Context, key lvs.ServiceKey) (lvs.ServiceStatus, error) {
	return r.services[0], r.did("service %v", key)
}
func (r *recorder) AddService(_ context.Context, s lvs.Service) error {
	return r.did("add service %+v", s)
}
func (r *recorder) EditService(_ context.Context, s lvs.Service) error {
	return r.did("edit service %+v", s)
}
func (r *recorder) DeleteService(_ context.Context, key lvs.ServiceKey) error {
	return r.did("delete service %v", key)
}
func (r *recorder) Clear(context.Context) error { return r.did("clear") }
func (r *recorder) AddServer(_ context.Context, key lvs.ServiceKey, s lvs.RealServer) error {
	return r.did("add server %v %+v", key, s)
}
func (r *recorder) EditServer(_ context.Context, key lvs.ServiceKey, s lvs.RealServer) error {
	return r.did("edit server %v %+v", key, s)
}
func (r *recorder) DeleteServer(_ context.Context, key lvs.ServiceKey, s lvs.RealServerKey) error {
	return r.did("delete server %v %v", key, s)
}
func (r *recorder) Zero(context.Context) error { return r.did("zero") }
func (r *recorder) ZeroService(_ context.Context, key lvs.ServiceKey) error {
	return r.did("zero %v", key)
}
func (r *recorder) Timeouts(context.Context) (lvs.Timeouts, error) {
	return lvs.Timeouts{TCP: 900 * time.Second, TCPFin: 120 * time.Second, UDP: 300 * time.Second}, r.did("timeouts")
}
func (r *recorder) SetTimeouts(_ context.Context, t lvs.Timeouts) error {
	return r.did("set timeouts %v", t)
}

// Sysctls returns values at the ends of what the wire has to carry.
func (r *recorder) Sysctls(_ context.Context, key lvs.ServiceKey) ([]lvs.SysctlValue, error) {
	return testSysctls, r.did("sysctls %v", key)
}

func (r *recorder) SetSysctls(_ context.Context, key lvs.ServiceKey, changes []lvs.SysctlChange) error {
	return r.did("set sysctls %v %v", key, changes)
}

var testSysctls = []lvs.SysctlValue{
	{Sysctl: lvs.Sysctl{Name: "some", Meaning: "thing", Unit: "s", Default: 3, Min: 1, Max: 5, PerService: true}, Value: 4, Own: true},
	{Sysctl: lvs.Sysctl{Name: "other", Min: math.MinInt32, Max: math.MaxInt32}, Value: math.MinInt32},
}

func (r *recorder) FindConnections(_ context.Context, filter lvs.ConnectionFilter, visit func(lvs.Connection) error) error {
	r.did("find connections %+v", filter)
	for r.sent = 0; r.sent < r.connections; r.sent++ {
		if err := visit(numbered(r.sent)); err != nil {
			return err
		}
	}
	return r.refusal
}

func (r *recorder) CountConnections(_ context.Context, filter lvs.ConnectionFilter, by []lvs.ConnectionField) (lvs.ConnectionCount, error) {
	return testCount, r.did("count connections %+v by %v", filter, by)
}

var testCount = lvs.ConnectionCount{
	ConnectionTotal: lvs.ConnectionTotal{Connections: 10, Packets: math.MaxUint64, Bytes: 20},
	Groups: []lvs.ConnectionGroup{
		{Values: []string{"192.0.2.11:80", "ESTABLISHED"}, ConnectionTotal: lvs.ConnectionTotal{Connections: 7, Packets: 8, Bytes: 9}},
	},
	Omitted: 3,
}

func (r *recorder) HandOver(_ context.Context, successor string) error {
	return r.did("hand over to %s", successor)
}

func (r *recorder) Peers(context.Context) ([]lvs.Peer, error) { return r.peers, r.did("peers") }
func (r *recorder) AddPeer(_ context.Context, addr netip.Addr) error {
	return r.did("add peer %v", addr)
}
func (r *recorder) DeletePeer(_ context.Context, addr netip.Addr) error {
	return r.did("delete peer %v", addr)
}

func (r *recorder) MarkRules(context.Context) ([]lvs.MarkRule, error) {
	return testMarkRules, r.did("mark rules")
}
func (r *recorder) AddMarkRule(_ context.Context, rule lvs.MarkRule, position int) error {
	return r.did("add mark rule %v at %d", rule, position)
}
func (r *recorder) DeleteMarkRule(_ context.Context, rule lvs.MarkRule) error {
	return r.did("delete mark rule %v", rule)
}

func (r *recorder) LocalAddresses(context.Context) ([]lvs.LocalAddressStatus, error) {
	return testLocalAddresses, r.did("local addresses")
}
func (r *recorder) AddLocalAddress(_ context.Context, local lvs.LocalAddress) error {
	return r.did("add local address %v with %v", local, local.Ports)
}
func (r *recorder) DeleteLocalAddress(_ context.Context, prefix netip.Prefix) error {
	return r.did("delete local address %v", prefix)
}

var testLocalAddresses = []lvs.LocalAddressStatus{
	{LocalAddress: lvs.LocalAddress{Prefix: netip.MustParsePrefix("192.0.2.32/28"), Ports: lvs.DefaultLocalPorts}},
	{LocalAddress: lvs.LocalAddress{Prefix: netip.MustParsePrefix("2001:db8::20/128"), Ports: lvs.PortRange{First: 1, Last: 1}}, Problem: "not here"},
}

var testMarkRules = []lvs.MarkRule{
	{Mark: math.MaxUint32, Protocol: lvs.SCTP, Source: netip.MustParsePrefix("2001:db8::/32"), Destination: netip.MustParsePrefix("2001:db8:1::1/128"),
		SourcePorts: lvs.PortRange{First: 1024, Last: 65535}, DestinationPorts: lvs.PortRange{First: 0, Last: 0}},
	{Mark: 1, SourcePorts: lvs.AllPorts, DestinationPorts: lvs.AllPorts},
}

func (r *recorder) State(context.Context) (lvs.State, error) { return r.state, r.did("state") }
func (r *recorder) Restore(_ context.Context, state lvs.State, dryRun bool) ([]string, error) {
	r.state = state
	return []string{"one", "two"}, r.did("restore %v", dryRun)
}

func (r *recorder) Explain(_ context.Context, q lvs.Question) (lvs.Explanation, error) {
	return lvs.Explanation{Verdict: "forward"}, r.did("explain %v", q)
}

func (r *recorder) Trace(_ context.Context, filter lvs.TraceFilter, visit func(lvs.TraceReport) error) error {
	err := r.did("trace %+v", filter)
	for _, report := range r.reports {
		if err == nil {
			err = visit(report)
		}
	}
	return err
}

// numbered returns a connection that tells its number by its client.
func numbered(i int) lvs.Connection {
	return lvs.Connection{
		Protocol: lvs.TCP,
		Client:   netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), uint16(i>>16)),
		Virtual:  netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 100}), 80),
		Server:   netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i % 16)}), 80),
		State:    lvs.StateEstablished,
		Expires:  900 * time.Second,
		Packets:  7,
		Bytes:    1234,
	}
}

func (r *recorder) Apply(_ context.Context, request ApplyRequest) (Applied, error) {
	return testApplied, r.did("apply %s %s %v %v", request.Name, request.Text, request.DryRun, request.Prune)
}
func (r *recorder) Rollback(_ context.Context, to int, dryRun bool) (Applied, error) {
	return testApplied, r.did("rollback %d %v", to, dryRun)
}
func (r *recorder) Drift(context.Context) ([]Change, error) { return testApplied.Drift, r.did("drift") }
func (r *recorder) Export(context.Context) (string, error)  { return "version: 1\n", r.did("export") }
func (r *recorder) Revisions(context.Context) ([]Revision, error) {
	return testRevisions, r.did("revisions")
}

func (r *recorder) Drain(_ context.Context, scope lvs.DrainScope, deadline time.Duration, then lvs.DrainEnd) ([]lvs.Drain, error) {
	return testDrains, r.did("drain %s within %s then %q", scope, deadline, then)
}
func (r *recorder) Undrain(_ context.Context, scope lvs.DrainScope) ([]lvs.Drain, error) {
	return testDrains, r.did("undrain %s", scope)
}
func (r *recorder) Drains(context.Context) ([]lvs.Drain, error) { return testDrains, r.did("drains") }
