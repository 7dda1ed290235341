package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"

	fairleadv1 "github.com/fairlead-lb/fairlead/api/fairlead/v1"
	"github.com/fairlead-lb/fairlead/api/fairlead/v1/fairleadv1connect"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// ErrUnreachable: nobody answers on the director's socket, or it is closed to
// this user. The message that wraps it says what to do.
var ErrUnreachable = errors.New("director is not reachable")

// A Client is a director that is reached through its socket, or over the network.
// It is safe for concurrent use.
type Client struct {
	// where is the socket or the address, for messages.
	where     string
	transport *http.Transport
	http      *http.Client
	host      string
	service   fairleadv1connect.DirectorServiceClient
	// connections is the one procedure whose answers are read raw.
	connections *connect.Client[fairleadv1.ListConnectionsRequest, rawMessage]
}

var _ Director = (*Client)(nil)

// NewClient returns a client of the director that serves the Unix socket at
// path. It connects when it is first used.
func NewClient(path string) *Client {
	const host = "http://director" // HTTP wants one; it is not looked up
	return newClient(path, host, &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
		DisableCompression: true,
		ReadBufferSize:     64 << 10,
	})
}

func newClient(where, host string, transport *http.Transport) *Client {
	client := &http.Client{Transport: transport}
	uncompressed := connect.WithAcceptCompression("gzip", nil, nil)
	return &Client{
		where:     where,
		transport: transport,
		http:      client,
		host:      host,
		service:   fairleadv1connect.NewDirectorServiceClient(client, host, uncompressed),
		connections: connect.NewClient[fairleadv1.ListConnectionsRequest, rawMessage](client,
			host+fairleadv1connect.DirectorServiceListConnectionsProcedure, uncompressed, connect.WithCodec(rawCodec{})),
	}
}

// Close lets go of the connections that are not in use.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// refused turns the error of a call into the one that the director returned.
func (c *Client) refused(err error) error {
	if told := c.refusedByTLS(err); told != nil {
		return told
	}
	var dial *net.OpError
	if !errors.As(err, &dial) || dial.Op != "dial" {
		return fromWire(err)
	}
	switch {
	case strings.HasPrefix(c.where, "https:"):
		return fmt.Errorf("%w: %s: %w", ErrUnreachable, c.where, dial.Err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: permission denied on %s: run this as root", ErrUnreachable, c.where)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: nobody answers on %s: start it with `fairlead director --interface IFACE`, "+
			"or name its run directory in FAIRLEAD_RUN_DIR", ErrUnreachable, c.where)
	}
	return fmt.Errorf("%w: %s: %w", ErrUnreachable, c.where, dial.Err)
}

// Status implements [Director].
func (c *Client) Status(ctx context.Context) (Status, error) {
	response, err := c.service.GetStatus(ctx, connect.NewRequest(&fairleadv1.GetStatusRequest{}))
	if err != nil {
		return Status{}, c.refused(err)
	}
	return statusFromWire(response.Msg), nil
}

// TableSize returns how many connections fit into the director's table.
func (c *Client) TableSize(ctx context.Context) (int, error) {
	status, err := c.Status(ctx)
	return status.TableSize, err
}

// Services implements [Director].
func (c *Client) Services(ctx context.Context) ([]lvs.ServiceStatus, error) {
	return c.list(ctx, nil)
}

// Service implements [Director].
func (c *Client) Service(ctx context.Context, key lvs.ServiceKey) (lvs.ServiceStatus, error) {
	services, err := c.list(ctx, keyToWire(key))
	if err != nil {
		return lvs.ServiceStatus{}, err
	}
	if len(services) != 1 {
		return lvs.ServiceStatus{}, fmt.Errorf("list service %s: director answered with %d services", key, len(services))
	}
	return services[0], nil
}

func (c *Client) list(ctx context.Context, key *fairleadv1.ServiceKey) ([]lvs.ServiceStatus, error) {
	response, err := c.service.ListServices(ctx, connect.NewRequest(&fairleadv1.ListServicesRequest{Key: key}))
	if err != nil {
		return nil, c.refused(err)
	}
	services, err := eachFromWire("services", response.Msg.Services, serviceStatusFromWire)
	if err != nil {
		return nil, fmt.Errorf("list services: director answered with %w", err)
	}
	return services, nil
}

// AddService implements [Director].
func (c *Client) AddService(ctx context.Context, service lvs.Service) error {
	if err := wholeSeconds("persistence timeout", service.PersistenceTimeout); err != nil {
		return err
	}
	_, err := c.service.AddService(ctx, connect.NewRequest(&fairleadv1.AddServiceRequest{Service: serviceToWire(service)}))
	return c.refused(err)
}

// EditService implements [Director].
func (c *Client) EditService(ctx context.Context, service lvs.Service) error {
	if err := wholeSeconds("persistence timeout", service.PersistenceTimeout); err != nil {
		return err
	}
	_, err := c.service.EditService(ctx, connect.NewRequest(&fairleadv1.EditServiceRequest{Service: serviceToWire(service)}))
	return c.refused(err)
}

// DeleteService implements [Director].
func (c *Client) DeleteService(ctx context.Context, key lvs.ServiceKey) error {
	_, err := c.service.DeleteService(ctx, connect.NewRequest(&fairleadv1.DeleteServiceRequest{Key: keyToWire(key)}))
	return c.refused(err)
}

// Clear implements [Director].
func (c *Client) Clear(ctx context.Context) error {
	_, err := c.service.Clear(ctx, connect.NewRequest(&fairleadv1.ClearRequest{}))
	return c.refused(err)
}

// AddServer implements [Director].
func (c *Client) AddServer(ctx context.Context, key lvs.ServiceKey, server lvs.RealServer) error {
	_, err := c.service.AddServer(ctx, connect.NewRequest(&fairleadv1.AddServerRequest{
		Service: keyToWire(key), Server: serverToWire(server),
	}))
	return c.refused(err)
}

// EditServer implements [Director].
func (c *Client) EditServer(ctx context.Context, key lvs.ServiceKey, server lvs.RealServer) error {
	_, err := c.service.EditServer(ctx, connect.NewRequest(&fairleadv1.EditServerRequest{
		Service: keyToWire(key), Server: serverToWire(server),
	}))
	return c.refused(err)
}

// DeleteServer implements [Director].
func (c *Client) DeleteServer(ctx context.Context, key lvs.ServiceKey, server lvs.RealServerKey) error {
	_, err := c.service.DeleteServer(ctx, connect.NewRequest(&fairleadv1.DeleteServerRequest{
		Service: keyToWire(key), Address: server.String(),
	}))
	return c.refused(err)
}

// Zero implements [Director].
func (c *Client) Zero(ctx context.Context) error {
	_, err := c.service.Zero(ctx, connect.NewRequest(&fairleadv1.ZeroRequest{}))
	return c.refused(err)
}

// ZeroService implements [Director].
func (c *Client) ZeroService(ctx context.Context, key lvs.ServiceKey) error {
	_, err := c.service.Zero(ctx, connect.NewRequest(&fairleadv1.ZeroRequest{Key: keyToWire(key)}))
	return c.refused(err)
}

// Timeouts implements [Director].
func (c *Client) Timeouts(ctx context.Context) (lvs.Timeouts, error) {
	response, err := c.service.GetTimeouts(ctx, connect.NewRequest(&fairleadv1.GetTimeoutsRequest{}))
	if err != nil {
		return lvs.Timeouts{}, c.refused(err)
	}
	return timeoutsFromWire("timeouts", response.Msg.Timeouts)
}

// SetTimeouts implements [Director].
func (c *Client) SetTimeouts(ctx context.Context, timeouts lvs.Timeouts) error {
	err := errors.Join(
		wholeSeconds("tcp timeout", timeouts.TCP),
		wholeSeconds("tcpfin timeout", timeouts.TCPFin),
		wholeSeconds("udp timeout", timeouts.UDP))
	if err != nil {
		return err
	}
	_, err = c.service.SetTimeouts(ctx, connect.NewRequest(&fairleadv1.SetTimeoutsRequest{
		Timeouts: timeoutsToWire(timeouts),
	}))
	return c.refused(err)
}

// wholeSeconds refuses what the wire would cut off.
func wholeSeconds(name string, d time.Duration) error {
	if d < 0 || d > MaxTimeout || d%time.Second != 0 {
		return invalid(name, d, "whole seconds, 0 to 31 days")
	}
	return nil
}

// Metrics writes what the director tells Prometheus, in its text format.
func (c *Client) Metrics(ctx context.Context, w io.Writer) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.host+"/metrics", nil)
	if err != nil {
		return fmt.Errorf("read metrics: %w", err)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return c.refused(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
		return fmt.Errorf("read metrics: director answered %s: %s", response.Status, bytes.TrimSpace(why))
	}
	if _, err := io.Copy(w, response.Body); err != nil {
		return fmt.Errorf("read metrics: %w", err)
	}
	return nil
}
