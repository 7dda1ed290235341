package health

import (
	"context"
	"errors"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The messages of grpc.health.v1 have one field each, with the numbers and types that
// those of the well-known wrappers have: a string, and an enum.
const (
	grpcHealthCheck = "/grpc.health.v1.Health/Check"
	grpcServing     = 1
)

var grpcStatusNames = map[int32]string{0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}

func (p *prober) askGRPC(ctx context.Context, target Target) Result {
	client := p.client(target)
	defer client.transport.CloseIdleConnections()
	rpc := connect.NewClient[wrapperspb.StringValue, wrapperspb.Int32Value](&client.Client, p.url(target, grpcHealthCheck),
		connect.WithGRPC(), connect.WithReadMaxBytes(maxBody))
	request := connect.NewRequest(wrapperspb.String(p.check.GRPC.Service))
	request.Header().Set("User-Agent", userAgent)
	response, err := rpc.CallUnary(ctx, request)
	var refused *connect.Error
	switch {
	case err == nil && response.Msg.Value == grpcServing:
		return success("SERVING")
	case err == nil:
		name, ok := grpcStatusNames[response.Msg.Value]
		if !ok {
			name = "an unknown status"
		}
		return failure(NotServing, "%s", name)
	case errors.As(err, &refused) && connect.IsWireError(err):
		return failure(NotServing, "%s: %s", refused.Code(), refused.Message())
	}
	return client.explain(err)
}
