package lvs

import "net/netip"

// A State is all that a director was told: what is lost with it, and can be given
// to another. Nothing that was learnt or counted belongs to it.
type State struct {
	// Sysctls are those that differ from their defaults; a timeout that
	// ipvsadm --set has changed is one of them.
	Sysctls []SysctlSetting
	// Peers are those that were added.
	Peers []netip.Addr
	// Marks are in the order in which they are looked at.
	Marks []MarkRule
	// LocalAddresses are the pool of FullNAT.
	LocalAddresses []LocalAddress
	Services       []ServiceState
}

// A ServiceState is what a director was told of one virtual service.
type ServiceState struct {
	Service
	// Sysctls are those that the service has for itself.
	Sysctls []SysctlSetting
	// Servers are in the order in which schedulers walk them.
	Servers []RealServer
}

// A SysctlSetting is a sysctl that was set.
type SysctlSetting struct {
	Name  string
	Value int32
}

// An ItemError is the refusal of one item of a [State]. Its message is that of Err.
type ItemError struct {
	// Item says where it stands: "sysctls[0]", "services[3].servers[1]".
	Item string
	Err  error
}

// Error returns the message of the refusal, which does not say where the item is.
func (e *ItemError) Error() string { return e.Err.Error() }

// Unwrap returns the refusal.
func (e *ItemError) Unwrap() error { return e.Err }
