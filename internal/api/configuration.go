package api

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	fairleadv1 "github.com/fairlead-lb/fairlead/api/fairlead/v1"
)

// An ApplyRequest is a configuration to apply.
type ApplyRequest struct {
	// Name is the file's, for errors; it says nothing else.
	Name string
	// Text is the file: YAML, or JSON.
	Text   []byte
	DryRun bool
	// Prune takes back what was changed by hand.
	Prune bool
}

// An Applied is what became of a configuration that was applied.
type Applied struct {
	// Revision is its number; of a dry run, and where nothing was to be changed, that
	// of the one before.
	Revision int
	// Changes are what was changed, or, by a dry run, what would be.
	Changes []Change
	// Drift is in what the state differs then from the configuration: what was
	// changed by hand and is kept.
	Drift []Change
}

// A Change is one step, for a person to read.
type Change struct {
	Sign   string // "+", "-" or "~"
	Text   string // "edit real server 192.0.2.11:80 of TCP 192.0.2.100:80"
	Detail string // "weight 1 -> 2", or ""
}

// A Revision is a configuration that was applied.
type Revision struct {
	Number int
	Time   time.Time
	Name   string
	// Of is the revision that it is the same as, because it was rolled back to; else
	// Number.
	Of int
	// Text is the configuration.
	Text string
}

// Apply implements [Director].
func (c *Client) Apply(ctx context.Context, request ApplyRequest) (Applied, error) {
	response, err := c.service.Apply(ctx, connect.NewRequest(&fairleadv1.ApplyRequest{
		Name: request.Name, Configuration: string(request.Text), DryRun: request.DryRun, Prune: request.Prune,
	}))
	if err != nil {
		return Applied{}, c.refused(err)
	}
	return appliedFromWire(response.Msg.Applied), nil
}

// Rollback implements [Director].
func (c *Client) Rollback(ctx context.Context, to int, dryRun bool) (Applied, error) {
	response, err := c.service.Rollback(ctx, connect.NewRequest(&fairleadv1.RollbackRequest{To: uint32(to), DryRun: dryRun}))
	if err != nil {
		return Applied{}, c.refused(err)
	}
	return appliedFromWire(response.Msg.Applied), nil
}

// Drift implements [Director].
func (c *Client) Drift(ctx context.Context) ([]Change, error) {
	response, err := c.service.GetDrift(ctx, connect.NewRequest(&fairleadv1.GetDriftRequest{}))
	if err != nil {
		return nil, c.refused(err)
	}
	return changesFromWire(response.Msg.Drift), nil
}

// Export implements [Director].
func (c *Client) Export(ctx context.Context) (string, error) {
	response, err := c.service.Export(ctx, connect.NewRequest(&fairleadv1.ExportRequest{}))
	if err != nil {
		return "", c.refused(err)
	}
	return response.Msg.Configuration, nil
}

// Revisions implements [Director].
func (c *Client) Revisions(ctx context.Context) ([]Revision, error) {
	response, err := c.service.ListRevisions(ctx, connect.NewRequest(&fairleadv1.ListRevisionsRequest{}))
	if err != nil {
		return nil, c.refused(err)
	}
	return each(response.Msg.Revisions, revisionFromWire), nil
}

func (h *handler) Apply(ctx context.Context, req *connect.Request[fairleadv1.ApplyRequest]) (
	*connect.Response[fairleadv1.ApplyResponse], error) {
	applied, err := h.director.Apply(ctx, ApplyRequest{
		Name: req.Msg.Name, Text: []byte(req.Msg.Configuration), DryRun: req.Msg.DryRun, Prune: req.Msg.Prune,
	})
	return reply(&fairleadv1.ApplyResponse{Applied: appliedToWire(applied)}, err)
}

func (h *handler) Rollback(ctx context.Context, req *connect.Request[fairleadv1.RollbackRequest]) (
	*connect.Response[fairleadv1.RollbackResponse], error) {
	applied, err := h.director.Rollback(ctx, int(req.Msg.To), req.Msg.DryRun)
	return reply(&fairleadv1.RollbackResponse{Applied: appliedToWire(applied)}, err)
}

func (h *handler) GetDrift(ctx context.Context, _ *connect.Request[fairleadv1.GetDriftRequest]) (
	*connect.Response[fairleadv1.GetDriftResponse], error) {
	drift, err := h.director.Drift(ctx)
	return reply(&fairleadv1.GetDriftResponse{Drift: changesToWire(drift)}, err)
}

func (h *handler) Export(ctx context.Context, _ *connect.Request[fairleadv1.ExportRequest]) (
	*connect.Response[fairleadv1.ExportResponse], error) {
	text, err := h.director.Export(ctx)
	return reply(&fairleadv1.ExportResponse{Configuration: text}, err)
}

func (h *handler) ListRevisions(ctx context.Context, _ *connect.Request[fairleadv1.ListRevisionsRequest]) (
	*connect.Response[fairleadv1.ListRevisionsResponse], error) {
	revisions, err := h.director.Revisions(ctx)
	return reply(&fairleadv1.ListRevisionsResponse{Revisions: each(revisions, revisionToWire)}, err)
}

func revisionToWire(r Revision) *fairleadv1.Revision {
	return &fairleadv1.Revision{
		Number: uint32(r.Number), Time: timestamppb.New(r.Time), Name: r.Name, Of: uint32(r.Of), Configuration: r.Text,
	}
}

func revisionFromWire(r *fairleadv1.Revision) Revision {
	return Revision{
		Number: int(r.GetNumber()), Time: r.GetTime().AsTime(), Name: r.GetName(), Of: int(r.GetOf()), Text: r.GetConfiguration(),
	}
}

func appliedToWire(a Applied) *fairleadv1.Applied {
	return &fairleadv1.Applied{Revision: uint32(a.Revision), Changes: changesToWire(a.Changes), Drift: changesToWire(a.Drift)}
}

func appliedFromWire(wire *fairleadv1.Applied) Applied {
	return Applied{
		Revision: int(wire.GetRevision()), Changes: changesFromWire(wire.GetChanges()), Drift: changesFromWire(wire.GetDrift()),
	}
}

func changesToWire(changes []Change) []*fairleadv1.Change {
	var wire []*fairleadv1.Change
	for _, c := range changes {
		wire = append(wire, &fairleadv1.Change{Sign: c.Sign, Text: c.Text, Detail: c.Detail})
	}
	return wire
}

func changesFromWire(wire []*fairleadv1.Change) []Change {
	var changes []Change
	for _, c := range wire {
		changes = append(changes, Change{Sign: c.GetSign(), Text: c.GetText(), Detail: c.GetDetail()})
	}
	return changes
}
