package ipvsadm

import (
	"errors"
	"fmt"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// The exit statuses of ipvsadm.
const (
	statusOK      = 0
	statusFailed  = 1   // a listing that was refused, and what only fairlead says
	statusUsage   = 2   // the command line contradicts itself
	statusRefused = 255 // a change that was refused, an option that popt can't take
)

// A failure is a command line that came to nothing.
type failure struct {
	status int
	text   string // without the newline that ends it
	// ends tells -R to stop at this line; else it goes on to the next.
	ends bool
}

// Error returns what ipvsadm prints.
func (f *failure) Error() string { return f.text }

// usageError is a complaint about the command line.
func usageError(format string, args ...any) error {
	return &failure{status: statusUsage, text: fmt.Sprintf(format, args...), ends: true}
}

func tryHelp() error {
	return &failure{
		status: statusRefused,
		text:   "Try `ipvsadm -h' or 'ipvsadm --help' for more information.",
		ends:   true,
	}
}

// badOption is an option that popt can't take.
func badOption(word string, cause error) error {
	return &failure{status: statusRefused, text: fmt.Sprintf("%s: %v", word, cause)}
}

// unreachable is a director that did not answer, or failed; err says it.
func unreachable(err error) error {
	return &failure{status: statusFailed, text: fmt.Sprintf("ipvsadm: %v", err), ends: true}
}

// refusals are ipvsadm's words for what a director refuses.
var refusals = []struct {
	err  error
	text string
}{
	{lvs.ErrServiceExists, "Service already exists"},
	{lvs.ErrNoService, "No such service"},
	{lvs.ErrServerExists, "Destination already exists"},
	{lvs.ErrNoServer, "No such destination"},
	{lvs.ErrSchedulerNotFound, "Scheduler or persistence engine not found"},
	{lvs.ErrInvalid, "Invalid operation.  Possibly wrong module version, address not unicast, ..."},
	{lvs.ErrRange, "Numerical result out of range"},
	{lvs.ErrTableFull, "Memory allocation problem"},
}

// refusal says in ipvsadm's words what a director answered to command.
func refusal(command token, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, lvs.ErrUnsupported) {
		return &failure{status: statusFailed, text: fmt.Sprintf("ipvsadm: %v", err)}
	}
	for _, r := range refusals {
		if !errors.Is(err, r.err) {
			continue
		}
		text := r.text
		if r.err == lvs.ErrNoService && (command == cmdAddServer || command == cmdEditServer || command == cmdDeleteServer) {
			text = "Service not defined"
		}
		if command == cmdList || command == cmdSave {
			return &failure{status: statusFailed, text: text, ends: true}
		}
		return &failure{status: statusRefused, text: text}
	}
	return unreachable(err)
}
