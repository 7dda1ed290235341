package ipvsadm

import (
	"context"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A Director is what the commands act on. Its refusals are those of package
// lvs, found with errors.Is; any other error says that it can't be reached, or
// failed. A refused change changes nothing.
type Director interface {
	// Services returns all virtual services in the order in which they were
	// added, the real servers of each in the order in which schedulers walk
	// them, the newest first.
	Services(ctx context.Context) ([]lvs.ServiceStatus, error)
	// Service returns one virtual service; lvs.ErrNoService without it.
	Service(ctx context.Context, key lvs.ServiceKey) (lvs.ServiceStatus, error)

	AddService(ctx context.Context, svc lvs.Service) error
	// EditService replaces all that is wanted of the service of svc's key.
	EditService(ctx context.Context, svc lvs.Service) error
	DeleteService(ctx context.Context, key lvs.ServiceKey) error
	// Clear deletes all services.
	Clear(ctx context.Context) error

	AddServer(ctx context.Context, key lvs.ServiceKey, rs lvs.RealServer) error
	// EditServer replaces all that is wanted of the real server of rs's key.
	EditServer(ctx context.Context, key lvs.ServiceKey, rs lvs.RealServer) error
	DeleteServer(ctx context.Context, key lvs.ServiceKey, rs lvs.RealServerKey) error

	// Zero zeroes the counters and rates of all services and their servers,
	// ZeroService those of one.
	Zero(ctx context.Context) error
	ZeroService(ctx context.Context, key lvs.ServiceKey) error

	Timeouts(ctx context.Context) (lvs.Timeouts, error)
	// SetTimeouts leaves a timeout that is zero in t as it is.
	SetTimeouts(ctx context.Context, t lvs.Timeouts) error

	// TableSize returns the size of the connection table, as the header of a
	// listing tells it.
	TableSize(ctx context.Context) (int, error)
	// Connections calls visit for each connection, in the order of the table,
	// until it returns an error, which Connections returns as it is.
	Connections(ctx context.Context, visit func(lvs.Connection) error) error
}
