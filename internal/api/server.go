package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"

	fairleadv1 "github.com/fairlead-lb/fairlead/api/fairlead/v1"
	"github.com/fairlead-lb/fairlead/api/fairlead/v1/fairleadv1connect"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

const (
	// maxRequest bounds the memory that one request can take.
	maxRequest = 1 << 20
	// maxState bounds that of a whole state, or of a file that says one: all services and real servers that fit
	// into a data plane take a few megabytes.
	maxState = 16 << 20
	// headerTimeout bounds how long a peer may take to say what it wants.
	headerTimeout = 10 * time.Second
	// grace is how long a stopping server lets requests end by themselves.
	grace = time.Second
)

// NewHandler returns the API of d as an HTTP handler: Connect, gRPC and
// gRPC-web, in protobuf and JSON. It does not compress: it is meant for a
// socket on one machine.
func NewHandler(d Director) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(fairleadv1connect.NewDirectorServiceHandler(&handler{director: d},
		connect.WithCompression("gzip", nil, nil),
		connect.WithConditionalHandlerOptions(func(procedure connect.Spec) []connect.HandlerOption {
			switch procedure.Procedure {
			case fairleadv1connect.DirectorServiceRestoreProcedure, fairleadv1connect.DirectorServiceApplyProcedure:
				return []connect.HandlerOption{connect.WithReadMaxBytes(maxState)}
			}
			return []connect.HandlerOption{connect.WithReadMaxBytes(maxRequest)}
		})))
	return mux
}

// Serve answers requests on l until ctx ends, then gives those under way one
// second and closes l. It returns nil after such an end. What a peer sends is
// bounded in size, and in the time that it takes.
func Serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Handler:           withDeadlines(h, bodyTimeout, writeTimeout),
		Protocols:         protocols,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		BaseContext:       func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	graceful, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if err := server.Shutdown(graceful); err != nil {
		server.Close()
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// A handler is the API of a director: it checks and converts what comes in,
// and converts what goes out.
type handler struct {
	director Director
}

func (h *handler) GetStatus(ctx context.Context, _ *connect.Request[fairleadv1.GetStatusRequest]) (
	*connect.Response[fairleadv1.GetStatusResponse], error) {
	status, err := h.director.Status(ctx)
	return reply(statusToWire(status), err)
}

func (h *handler) ListServices(ctx context.Context, req *connect.Request[fairleadv1.ListServicesRequest]) (
	*connect.Response[fairleadv1.ListServicesResponse], error) {
	services, err := h.list(ctx, req.Msg.Key)
	return reply(&fairleadv1.ListServicesResponse{Services: each(services, serviceStatusToWire)}, err)
}

// list returns all services, or the one of key if it is set.
func (h *handler) list(ctx context.Context, key *fairleadv1.ServiceKey) ([]lvs.ServiceStatus, error) {
	if key == nil {
		return h.director.Services(ctx)
	}
	wanted, err := keyFromWire("key", key)
	if err != nil {
		return nil, err
	}
	service, err := h.director.Service(ctx, wanted)
	if err != nil {
		return nil, err
	}
	return []lvs.ServiceStatus{service}, nil
}

func (h *handler) AddService(ctx context.Context, req *connect.Request[fairleadv1.AddServiceRequest]) (
	*connect.Response[fairleadv1.AddServiceResponse], error) {
	service, err := serviceFromWire("service", req.Msg.Service)
	if err == nil {
		err = h.director.AddService(ctx, service)
	}
	return answer[fairleadv1.AddServiceResponse](err)
}

func (h *handler) EditService(ctx context.Context, req *connect.Request[fairleadv1.EditServiceRequest]) (
	*connect.Response[fairleadv1.EditServiceResponse], error) {
	service, err := serviceFromWire("service", req.Msg.Service)
	if err == nil {
		err = h.director.EditService(ctx, service)
	}
	return answer[fairleadv1.EditServiceResponse](err)
}

func (h *handler) DeleteService(ctx context.Context, req *connect.Request[fairleadv1.DeleteServiceRequest]) (
	*connect.Response[fairleadv1.DeleteServiceResponse], error) {
	key, err := keyFromWire("key", req.Msg.Key)
	if err == nil {
		err = h.director.DeleteService(ctx, key)
	}
	return answer[fairleadv1.DeleteServiceResponse](err)
}

func (h *handler) Clear(ctx context.Context, _ *connect.Request[fairleadv1.ClearRequest]) (
	*connect.Response[fairleadv1.ClearResponse], error) {
	return answer[fairleadv1.ClearResponse](h.director.Clear(ctx))
}

func (h *handler) AddServer(ctx context.Context, req *connect.Request[fairleadv1.AddServerRequest]) (
	*connect.Response[fairleadv1.AddServerResponse], error) {
	key, server, err := serviceAndServer(req.Msg.Service, req.Msg.Server)
	if err == nil {
		err = h.director.AddServer(ctx, key, server)
	}
	return answer[fairleadv1.AddServerResponse](err)
}

func (h *handler) EditServer(ctx context.Context, req *connect.Request[fairleadv1.EditServerRequest]) (
	*connect.Response[fairleadv1.EditServerResponse], error) {
	key, server, err := serviceAndServer(req.Msg.Service, req.Msg.Server)
	if err == nil {
		err = h.director.EditServer(ctx, key, server)
	}
	return answer[fairleadv1.EditServerResponse](err)
}

func serviceAndServer(service *fairleadv1.ServiceKey, server *fairleadv1.RealServer) (
	lvs.ServiceKey, lvs.RealServer, error) {
	key, err := keyFromWire("service", service)
	if err != nil {
		return lvs.ServiceKey{}, lvs.RealServer{}, err
	}
	wanted, err := serverFromWire("server", server)
	return key, wanted, err
}

func (h *handler) DeleteServer(ctx context.Context, req *connect.Request[fairleadv1.DeleteServerRequest]) (
	*connect.Response[fairleadv1.DeleteServerResponse], error) {
	key, err := keyFromWire("service", req.Msg.Service)
	if err != nil {
		return nil, toWire(err)
	}
	server, err := serverKeyFromWire("address", req.Msg.Address)
	if err == nil {
		err = h.director.DeleteServer(ctx, key, server)
	}
	return answer[fairleadv1.DeleteServerResponse](err)
}

func (h *handler) Zero(ctx context.Context, req *connect.Request[fairleadv1.ZeroRequest]) (
	*connect.Response[fairleadv1.ZeroResponse], error) {
	if req.Msg.Key == nil {
		return answer[fairleadv1.ZeroResponse](h.director.Zero(ctx))
	}
	key, err := keyFromWire("key", req.Msg.Key)
	if err == nil {
		err = h.director.ZeroService(ctx, key)
	}
	return answer[fairleadv1.ZeroResponse](err)
}

func (h *handler) GetTimeouts(ctx context.Context, _ *connect.Request[fairleadv1.GetTimeoutsRequest]) (
	*connect.Response[fairleadv1.GetTimeoutsResponse], error) {
	timeouts, err := h.director.Timeouts(ctx)
	return reply(&fairleadv1.GetTimeoutsResponse{Timeouts: timeoutsToWire(timeouts)}, err)
}

func (h *handler) SetTimeouts(ctx context.Context, req *connect.Request[fairleadv1.SetTimeoutsRequest]) (
	*connect.Response[fairleadv1.SetTimeoutsResponse], error) {
	timeouts, err := timeoutsFromWire("timeouts", req.Msg.Timeouts)
	if err == nil {
		err = h.director.SetTimeouts(ctx, timeouts)
	}
	return answer[fairleadv1.SetTimeoutsResponse](err)
}

// reply returns a response, or the refusal that err is.
func reply[Response any](response *Response, err error) (*connect.Response[Response], error) {
	if err != nil {
		return nil, toWire(err)
	}
	return connect.NewResponse(response), nil
}

// answer returns an empty response, or the refusal that err is.
func answer[Response any](err error) (*connect.Response[Response], error) {
	return reply(new(Response), err)
}
