package api

import (
	"context"
	"net/netip"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A Director is what the API reads and changes: the daemon itself, or a
// [Client] of it. It is safe for concurrent use. A change is atomic: after an
// error, nothing has changed. Errors wrap the lvs.Err... that names the reason.
type Director interface {
	Status(ctx context.Context) (Status, error)

	// Services returns all services in the order in which they were added, each
	// with its servers in the order in which schedulers walk them.
	Services(ctx context.Context) ([]lvs.ServiceStatus, error)
	// Service returns one of them, or lvs.ErrNoService.
	Service(ctx context.Context, key lvs.ServiceKey) (lvs.ServiceStatus, error)
	AddService(ctx context.Context, service lvs.Service) error
	EditService(ctx context.Context, service lvs.Service) error
	DeleteService(ctx context.Context, key lvs.ServiceKey) error
	// Clear deletes every service. It stops at the first that cannot be deleted.
	Clear(ctx context.Context) error

	AddServer(ctx context.Context, key lvs.ServiceKey, server lvs.RealServer) error
	EditServer(ctx context.Context, key lvs.ServiceKey, server lvs.RealServer) error
	DeleteServer(ctx context.Context, key lvs.ServiceKey, server lvs.RealServerKey) error

	// Drain gives the real servers of a scope no new connections until Undrain. At the
	// deadline, if it is above 0 from now, then happens to what is left. It wraps
	// lvs.ErrNoServer if the scope has none.
	Drain(ctx context.Context, scope lvs.DrainScope, deadline time.Duration, then lvs.DrainEnd) ([]lvs.Drain, error)
	// Undrain returns the drains that it ended, as they were. It wraps lvs.ErrNoDrain
	// if there is none.
	Undrain(ctx context.Context, scope lvs.DrainScope) ([]lvs.Drain, error)
	// Drains returns those that go on, by service and server.
	Drains(ctx context.Context) ([]lvs.Drain, error)

	// Zero zeroes the counters of all services and servers, ZeroService those
	// of one service and its servers.
	Zero(ctx context.Context) error
	ZeroService(ctx context.Context, key lvs.ServiceKey) error

	Timeouts(ctx context.Context) (lvs.Timeouts, error)
	// SetTimeouts leaves a timeout whose value is zero as it is.
	SetTimeouts(ctx context.Context, timeouts lvs.Timeouts) error

	// Sysctls returns the sysctls of the director, for the zero key, or those that
	// a service may have for itself.
	Sysctls(ctx context.Context, service lvs.ServiceKey) ([]lvs.SysctlValue, error)
	SetSysctls(ctx context.Context, service lvs.ServiceKey, changes []lvs.SysctlChange) error

	// FindConnections calls visit with every entry of the connection table that
	// passes the filter, in the order of the table, until visit returns an error,
	// which it then returns.
	FindConnections(ctx context.Context, filter lvs.ConnectionFilter, visit func(lvs.Connection) error) error
	// CountConnections counts those that pass the filter, by these fields; the
	// filter's limit is that of the groups.
	CountConnections(ctx context.Context, filter lvs.ConnectionFilter, by []lvs.ConnectionField) (lvs.ConnectionCount, error)

	// Peers returns the other directors whose frames for a virtual service are for
	// this host, by address.
	Peers(ctx context.Context) ([]lvs.Peer, error)
	// AddPeer and DeletePeer change those that are configured, not those that are
	// peers because they are real servers beside one that is this host.
	AddPeer(ctx context.Context, addr netip.Addr) error
	DeletePeer(ctx context.Context, addr netip.Addr) error

	// MarkRules returns the rules that say which packets carry a firewall mark, in
	// the order in which they are looked at.
	MarkRules(ctx context.Context) ([]lvs.MarkRule, error)
	// AddMarkRule puts a rule at a position: 1 is before all others, 0 is after all.
	AddMarkRule(ctx context.Context, rule lvs.MarkRule, position int) error
	// DeleteMarkRule deletes the first rule that is equal, wherever it stands.
	DeleteMarkRule(ctx context.Context, rule lvs.MarkRule) error

	// LocalAddresses returns the pool that clients of FullNAT real servers come from.
	LocalAddresses(ctx context.Context) ([]lvs.LocalAddressStatus, error)
	// AddLocalAddress adds to the pool, for connections that begin.
	AddLocalAddress(ctx context.Context, local lvs.LocalAddress) error
	// DeleteLocalAddress takes one out that was added with that prefix. Connections that
	// come from there go on. The last one of a family is refused while a real server of
	// that family has FullNAT.
	DeleteLocalAddress(ctx context.Context, prefix netip.Prefix) error

	// State returns all that the director was told: sysctls, peers, services in the
	// order of their keys.
	State(ctx context.Context) (lvs.State, error)
	// Restore makes the director's state another one, whole: what state does not
	// have goes, what is in both stays with its connections and counters. Of the
	// services only their order has no meaning. It returns what it changed, for a
	// person to read, or, with dryRun, what it would change. All of state is checked
	// before the first change; the refusal of an item is an *lvs.ItemError.
	Restore(ctx context.Context, state lvs.State, dryRun bool) ([]string, error)

	// Apply makes the director's state the one that a configuration asks for, whole
	// or not at all. Where the configuration is as it was when the last one was
	// applied, what was changed by hand since then stays: it is told as drift. An error
	// in the configuration says its place.
	Apply(ctx context.Context, request ApplyRequest) (Applied, error)
	// Rollback applies the configuration of a revision again, that before the one in
	// force for 0.
	Rollback(ctx context.Context, to int, dryRun bool) (Applied, error)
	// Drift returns in what the state differs from the configuration that was applied
	// last; nothing if none was.
	Drift(ctx context.Context) ([]Change, error)
	// Export returns a configuration that asks for the state that is.
	Export(ctx context.Context) (string, error)
	// Revisions returns the configurations that were applied, as far as they are kept,
	// the last one last.
	Revisions(ctx context.Context) ([]Revision, error)

	// HandOver ends the daemon for a successor, which waits until it may take the
	// run directory over. What is asked for after that is refused or lost.
	HandOver(ctx context.Context, successor string) error

	// Explain tells what would become of a packet that came in now, and why. It
	// changes nothing.
	Explain(ctx context.Context, question lvs.Question) (lvs.Explanation, error)

	// Trace calls visit with the packets that pass and that filter picks, until
	// it has told as many, or as long, as filter says: it then returns nil. It
	// ends sooner with the error of ctx or of visit. The first report has no
	// packet: packets are picked from then on.
	Trace(ctx context.Context, filter lvs.TraceFilter, visit func(lvs.TraceReport) error) error
}

// A Status is what a director tells of itself.
type Status struct {
	Version string
	// Uptime is of the daemon; forwarding may be older.
	Uptime     time.Duration
	Interfaces []Interface
	// TableSize is how many connections fit; TableUsed is how many entries were
	// in use when the table was last swept.
	TableSize int
	TableUsed int
	Sweeps    Sweeps
	Verdicts  []Verdict
}

// Sweeps are those of the connection table since the daemon started.
type Sweeps struct {
	Count   uint64
	Time    time.Duration // of all
	Last    time.Duration // of the last one
	Expired uint64        // entries that they ended
}

// An Interface is one that the data plane is attached to.
type Interface struct {
	Name string
	Mode string // "xdp", "xdp-generic" or "tc"
}

// A Verdict says how often packets left the data plane by one way out.
type Verdict struct {
	Name    string
	Kind    string // "normal", "misconfiguration" or "bug"
	Meaning string
	Packets uint64
}
