package lvs

import "errors"

// The refusals of a change. They pass through the API: errors.Is finds them on
// the client's side too.
var (
	ErrServiceExists      = errors.New("service already exists")
	ErrNoService          = errors.New("no such service")
	ErrServerExists       = errors.New("real server already exists")
	ErrNoServer           = errors.New("no such real server")
	ErrPeerExists         = errors.New("peer already exists")
	ErrNoPeer             = errors.New("no such peer")
	ErrMarkRuleExists     = errors.New("mark rule already exists")
	ErrNoMarkRule         = errors.New("no such mark rule")
	ErrLocalAddressExists = errors.New("local address already exists")
	ErrNoLocalAddress     = errors.New("no such local address")
	ErrNoDrain            = errors.New("not drained")
	ErrSchedulerNotFound  = errors.New("scheduler or persistence engine not found")
	ErrInvalid            = errors.New("invalid")
	ErrRange              = errors.New("out of range")
	ErrTableFull          = errors.New("table full")
	// ErrUnsupported: IPVS has it, this version of fairlead has not yet. The
	// message that wraps it says what.
	ErrUnsupported = errors.New("not supported yet")
)
