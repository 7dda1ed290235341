package director

import (
	"context"
	"errors"
	"net"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// errStopping ends traces when the daemon does.
var errStopping = errors.New("the director stops")

// Trace implements [api.Director]. It wraps lvs.ErrTableFull when as many traces
// go on as can.
func (d *Director) Trace(ctx context.Context, filter lvs.TraceFilter, visit func(lvs.TraceReport) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-d.stopping:
			cancel(errStopping)
		case <-ctx.Done():
		}
	}()
	names := interfaceNames{}
	packets, lost := 0, uint64(0)
	begun := false
	err := d.plane.Trace(ctx, filter, func(report lvs.TraceReport) error {
		if !begun {
			d.log.Info("trace begun", "packets", filterText(filter))
			begun = true
		}
		if report.Packet != nil {
			names.fill(&report.Packet.Explanation)
			packets++
		}
		lost = report.Lost
		return visit(report)
	})
	if begun {
		d.log.Info("trace ended", "told", packets, "lost", lost)
	}
	if errors.Is(context.Cause(ctx), errStopping) && errors.Is(err, context.Canceled) {
		return errStopping
	}
	return err
}

// filterText says which packets a filter picks.
func filterText(f lvs.TraceFilter) string {
	text := "all"
	if f.Protocol != 0 {
		text = f.Protocol.String()
	}
	if client := f.Client.String(); client != "" {
		text += " from " + client
	}
	if virtual := f.Virtual.String(); virtual != "" {
		text += " to " + virtual
	}
	return text
}

// interfaceNames keeps the names of interfaces by index for as long as one trace.
type interfaceNames map[int]string

func (n interfaceNames) fill(e *lvs.Explanation) {
	e.In.InterfaceName = n.name(e.In.InterfaceIndex)
	if e.Out != nil {
		e.Out.InterfaceName = n.name(e.Out.InterfaceIndex)
	}
}

// name is "" for an interface that is gone.
func (n interfaceNames) name(index int) string {
	name, ok := n[index]
	if !ok {
		if in, err := net.InterfaceByIndex(index); err == nil {
			name = in.Name
		}
		n[index] = name
	}
	return name
}
