package api

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	fairleadv1 "github.com/fairlead-lb/fairlead/api/fairlead/v1"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// ErrUnknownProcedure: the director is of a version that does not know what it was
// asked for.
var ErrUnknownProcedure = errors.New("the director does not know this request")

// refusals says how each reason of the domain travels.
var refusals = [...]struct {
	reason error
	code   connect.Code
	detail fairleadv1.Reason
}{
	{lvs.ErrServiceExists, connect.CodeAlreadyExists, fairleadv1.Reason_REASON_SERVICE_EXISTS},
	{lvs.ErrNoService, connect.CodeNotFound, fairleadv1.Reason_REASON_NO_SERVICE},
	{lvs.ErrServerExists, connect.CodeAlreadyExists, fairleadv1.Reason_REASON_SERVER_EXISTS},
	{lvs.ErrNoServer, connect.CodeNotFound, fairleadv1.Reason_REASON_NO_SERVER},
	{lvs.ErrPeerExists, connect.CodeAlreadyExists, fairleadv1.Reason_REASON_PEER_EXISTS},
	{lvs.ErrNoPeer, connect.CodeNotFound, fairleadv1.Reason_REASON_NO_PEER},
	{lvs.ErrMarkRuleExists, connect.CodeAlreadyExists, fairleadv1.Reason_REASON_MARK_RULE_EXISTS},
	{lvs.ErrNoMarkRule, connect.CodeNotFound, fairleadv1.Reason_REASON_NO_MARK_RULE},
	{lvs.ErrLocalAddressExists, connect.CodeAlreadyExists, fairleadv1.Reason_REASON_LOCAL_ADDRESS_EXISTS},
	{lvs.ErrNoLocalAddress, connect.CodeNotFound, fairleadv1.Reason_REASON_NO_LOCAL_ADDRESS},
	{lvs.ErrNoDrain, connect.CodeNotFound, fairleadv1.Reason_REASON_NO_DRAIN},
	{lvs.ErrSchedulerNotFound, connect.CodeInvalidArgument, fairleadv1.Reason_REASON_SCHEDULER_NOT_FOUND},
	{lvs.ErrInvalid, connect.CodeInvalidArgument, fairleadv1.Reason_REASON_INVALID},
	{lvs.ErrRange, connect.CodeOutOfRange, fairleadv1.Reason_REASON_OUT_OF_RANGE},
	{lvs.ErrTableFull, connect.CodeResourceExhausted, fairleadv1.Reason_REASON_TABLE_FULL},
	{lvs.ErrUnsupported, connect.CodeUnimplemented, fairleadv1.Reason_REASON_UNSUPPORTED},
}

// toWire turns an error of a Director into one that connect sends.
func toWire(err error) error {
	if err == nil {
		return nil
	}
	for _, r := range refusals {
		if !errors.Is(err, r.reason) {
			continue
		}
		wire := connect.NewError(r.code, err)
		refused := &fairleadv1.Refusal{Reason: r.detail}
		var item *lvs.ItemError
		if errors.As(err, &item) {
			refused.Item = item.Item
		}
		detail, detailErr := connect.NewErrorDetail(refused)
		if detailErr != nil {
			return connect.NewError(connect.CodeInternal, errors.Join(err, detailErr))
		}
		wire.AddDetail(detail)
		return wire
	}
	switch {
	case errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, err)
	case errors.Is(err, context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, err)
	}
	return connect.NewError(connect.CodeInternal, err)
}

// A refusal is a director's error as its client sees it.
type refusal struct {
	message string
	reason  error
}

// Error returns the message that the director gave.
func (r *refusal) Error() string { return r.message }

// Unwrap returns the lvs.Err... that the director's error wrapped.
func (r *refusal) Unwrap() error { return r.reason }

// fromWire turns an error that a director sent back into what toWire was
// given. An error of another origin it returns as it is.
func fromWire(err error) error {
	var wire *connect.Error
	if !errors.As(err, &wire) {
		return err
	}
	if !connect.IsWireError(err) {
		if wire.Code() == connect.CodeUnimplemented { // what HTTP status 404 comes to
			return fmt.Errorf("%w: %w", ErrUnknownProcedure, err)
		}
		return err
	}
	for _, detail := range wire.Details() {
		message, err := detail.Value()
		if err != nil {
			continue
		}
		sent, ok := message.(*fairleadv1.Refusal)
		if !ok {
			continue
		}
		for _, r := range refusals {
			if r.detail != sent.Reason {
				continue
			}
			refused := &refusal{message: wire.Message(), reason: r.reason}
			if sent.Item != "" {
				return &lvs.ItemError{Item: sent.Item, Err: refused}
			}
			return refused
		}
	}
	switch {
	case wire.Code() == connect.CodeUnimplemented:
		return fmt.Errorf("%w: %w", ErrUnknownProcedure, err)
	case wire.Message() == "":
		return err
	}
	return errors.New(wire.Message())
}
