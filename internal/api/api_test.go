package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	fairleadv1 "github.com/fairlead-lb/fairlead/api/fairlead/v1"
	"github.com/fairlead-lb/fairlead/api/fairlead/v1/fairleadv1connect"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// serve serves d on a socket until the test ends, and returns its client.
func serve(t testing.TB, d Director) *Client {
	t.Helper()
	return serveHandler(t, NewHandler(d))
}

func serveHandler(t testing.TB, handler http.Handler) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), SocketName)
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, l, handler, slog.New(slog.DiscardHandler)) }()
	client := NewClient(path)
	t.Cleanup(func() {
		client.Close()
		stop()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return client
}

func TestEveryCallArrives(t *testing.T) {
	g := newGenerator(t)
	d := &recorder{services: []lvs.ServiceStatus{g.serviceStatus(), g.serviceStatus()}}
	c := serve(t, d)
	ctx := t.Context()
	service, server, key := g.service(), g.server(), g.key()
	changes := []lvs.SysctlChange{{Name: "sloppy_tcp", Value: -1}, {Name: "timeout_udp", Reset: true}}
	timeouts := lvs.Timeouts{TCP: 7 * time.Second}
	for _, test := range []struct {
		call func() error
		want string
	}{
		{func() error { return c.AddService(ctx, service) }, fmt.Sprintf("add service %+v", service)},
		{func() error { return c.EditService(ctx, service) }, fmt.Sprintf("edit service %+v", service)},
		{func() error { return c.DeleteService(ctx, key) }, fmt.Sprintf("delete service %v", key)},
		{func() error { return c.Clear(ctx) }, "clear"},
		{func() error { return c.AddServer(ctx, key, server) }, fmt.Sprintf("add server %v %+v", key, server)},
		{func() error { return c.EditServer(ctx, key, server) }, fmt.Sprintf("edit server %v %+v", key, server)},
		{func() error { return c.DeleteServer(ctx, key, server.RealServerKey) },
			fmt.Sprintf("delete server %v %v", key, server.RealServerKey)},
		{func() error { return c.Zero(ctx) }, "zero"},
		{func() error { return c.ZeroService(ctx, key) }, fmt.Sprintf("zero %v", key)},
		{func() error { return c.AddPeer(ctx, server.Address) }, fmt.Sprintf("add peer %v", server.Address)},
		{func() error { return c.DeletePeer(ctx, server.Address) }, fmt.Sprintf("delete peer %v", server.Address)},
		{func() error { return c.AddMarkRule(ctx, testMarkRules[0], 3) }, fmt.Sprintf("add mark rule %v at 3", testMarkRules[0])},
		{func() error { return c.DeleteMarkRule(ctx, testMarkRules[1]) }, fmt.Sprintf("delete mark rule %v", testMarkRules[1])},
		{func() error { return c.AddLocalAddress(ctx, testLocalAddresses[0].LocalAddress) }, "add local address 192.0.2.32/28 with 1024-32767"},
		{func() error { return c.DeleteLocalAddress(ctx, testLocalAddresses[1].Prefix) }, "delete local address 2001:db8::20/128"},
		{func() error { return c.SetTimeouts(ctx, timeouts) }, fmt.Sprintf("set timeouts %v", timeouts)},
		{func() error { return c.SetSysctls(ctx, key, changes) }, fmt.Sprintf("set sysctls %v %v", key, changes)},
		{func() error { return c.SetSysctls(ctx, lvs.ServiceKey{}, nil) }, fmt.Sprintf("set sysctls %v []", lvs.ServiceKey{})},
	} {
		d.calls = nil
		if err := test.call(); err != nil {
			t.Errorf("%s: %v", test.want, err)
		}
		if diff := cmp.Diff([]string{test.want}, d.calls); diff != "" {
			t.Errorf("-wanted +called:\n%s", diff)
		}
	}
	for _, of := range []lvs.ServiceKey{{}, key} {
		d.calls = nil
		values, err := c.Sysctls(ctx, of)
		if diff := cmp.Diff(testSysctls, values); err != nil || diff != "" {
			t.Errorf("sysctls: %v\n%s", err, diff)
		}
		if diff := cmp.Diff([]string{fmt.Sprintf("sysctls %v", of)}, d.calls); diff != "" {
			t.Errorf("-wanted +called:\n%s", diff)
		}
	}
	rules, err := c.MarkRules(ctx)
	if diff := cmp.Diff(testMarkRules, rules, compareAddresses); err != nil || diff != "" {
		t.Errorf("mark rules: %v\n%s", err, diff)
	}
	pool, err := c.LocalAddresses(ctx)
	if diff := cmp.Diff(testLocalAddresses, pool, compareAddresses); err != nil || diff != "" {
		t.Errorf("local addresses: %v\n%s", err, diff)
	}
	services, err := c.Services(ctx)
	if diff := cmp.Diff(d.services, services, compareAddresses); err != nil || diff != "" {
		t.Errorf("services: %v\n%s", err, diff)
	}
	one, err := c.Service(ctx, key)
	if diff := cmp.Diff(d.services[0], one, compareAddresses); err != nil || diff != "" {
		t.Errorf("service: %v\n%s", err, diff)
	}
	if size, err := c.TableSize(ctx); err != nil || size != 4096 {
		t.Errorf("table size: %d, %v", size, err)
	}
	if got, err := c.Timeouts(ctx); err != nil || got.TCP != 900*time.Second {
		t.Errorf("timeouts: %v, %v", got, err)
	}
}

func TestRefusalsPassWhole(t *testing.T) {
	d := &recorder{}
	c := serve(t, d)
	for _, reason := range []error{
		lvs.ErrServiceExists, lvs.ErrNoService, lvs.ErrServerExists, lvs.ErrNoServer, lvs.ErrSchedulerNotFound,
		lvs.ErrInvalid, lvs.ErrRange, lvs.ErrTableFull, lvs.ErrUnsupported, lvs.ErrPeerExists, lvs.ErrNoPeer,
		lvs.ErrMarkRuleExists, lvs.ErrNoMarkRule, lvs.ErrLocalAddressExists, lvs.ErrNoLocalAddress, lvs.ErrNoDrain,
	} {
		d.refusal = fmt.Errorf("clear \u2014 100%% of it: %w", reason)
		err := c.Clear(t.Context())
		if !errors.Is(err, reason) {
			t.Errorf("%v came back as %v", reason, err)
		}
		if err == nil || err.Error() != d.refusal.Error() {
			t.Errorf("message %q came back as %q", d.refusal, err)
		}
	}
	if len(refusals) != 16 {
		t.Errorf("%d reasons travel, 16 are tested", len(refusals))
	}
	d.refusal = errors.New("read map: bad file descriptor")
	if err := c.Clear(t.Context()); err == nil || err.Error() != d.refusal.Error() {
		t.Errorf("message %q came back as %q", d.refusal, err)
	}
	if err := c.SetTimeouts(t.Context(), lvs.Timeouts{UDP: time.Millisecond}); !errors.Is(err, lvs.ErrInvalid) {
		t.Errorf("a millisecond: %v", err)
	}
}

func TestConnectionsStream(t *testing.T) {
	for _, n := range []int{0, 1, connectionBatch - 1, connectionBatch, connectionBatch + 1, 5 * connectionBatch} {
		c := serve(t, &recorder{connections: n})
		got := 0
		err := c.Connections(t.Context(), func(conn lvs.Connection) error {
			if conn != numbered(got) {
				return fmt.Errorf("connection %d: got %+v", got, conn)
			}
			got++
			return nil
		})
		if err != nil || got != n {
			t.Errorf("%d connections, %v, want %d", got, err, n)
		}
	}
}

func TestConnectionsEndEarly(t *testing.T) {
	const many = 1 << 30 // more than anyone waits for
	c := serve(t, &recorder{connections: many})
	enough := errors.New("enough")
	if err := c.Connections(t.Context(), func(lvs.Connection) error { return enough }); err != enough {
		t.Errorf("visit's error: got %v", err)
	}
	refused := serve(t, &recorder{connections: 10, refusal: fmt.Errorf("read table: %w", lvs.ErrRange)})
	seen := 0
	err := refused.Connections(t.Context(), func(lvs.Connection) error { seen++; return nil })
	if !errors.Is(err, lvs.ErrRange) {
		t.Errorf("refusal within the stream: got %v", err)
	}
}

func TestUnreachable(t *testing.T) {
	path := filepath.Join(t.TempDir(), SocketName)
	err := NewClient(path).Clear(t.Context())
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), path) {
		t.Errorf("no socket: %v", err)
	}
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := NewClient(path).Clear(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("nobody listens: %v", err)
	}
}

func TestListen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, SocketName)
	for range 2 { // the second replaces what a killed director left
		l, err := Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != os.ModeSocket|0o600 {
			t.Errorf("mode %v, want a socket of mode 0600", info.Mode())
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if _, err := Listen(filepath.Join(dir, strings.Repeat("x", 120), SocketName)); err == nil {
		t.Error("a socket in a directory that is not there")
	}
}

// The API is open to programs that know neither Go nor protobuf.
func TestPlainJSON(t *testing.T) {
	d := &recorder{}
	c := serve(t, d)
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", c.where) },
	}}
	defer client.CloseIdleConnections()
	post := func(method, body string) (int, map[string]any) {
		t.Helper()
		response, err := client.Post("http://director/fairlead.v1.DirectorService/"+method, "application/json",
			bytes.NewBufferString(body))
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		raw, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		answer := map[string]any{}
		if err := json.Unmarshal(raw, &answer); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		return response.StatusCode, answer
	}
	status, answer := post("AddService",
		`{"service":{"key":{"protocol":"PROTOCOL_TCP","address":"192.0.2.100:80"},"scheduler":"wlc"}}`)
	if status != http.StatusOK || len(d.calls) != 1 {
		t.Errorf("add service: %d %v, calls %v", status, answer, d.calls)
	}
	status, answer = post("AddService", `{"service":{"key":{"protocol":"PROTOCOL_TCP","address":"nowhere"}}}`)
	if status != http.StatusBadRequest || answer["code"] != "invalid_argument" {
		t.Errorf("bad address: %d %v", status, answer)
	}
	if len(d.calls) != 1 {
		t.Errorf("bad input reached the director: %v", d.calls)
	}
}

// The API is open to gRPC clients of any language.
func TestGRPC(t *testing.T) {
	d := &recorder{connections: 3, refusal: fmt.Errorf("clear: %w", lvs.ErrTableFull)}
	c := serve(t, d)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", c.where)
	}}
	defer transport.CloseIdleConnections()
	client := fairleadv1connect.NewDirectorServiceClient(&http.Client{Transport: transport}, "http://director", connect.WithGRPC())
	_, err := client.Clear(t.Context(), connect.NewRequest(&fairleadv1.ClearRequest{}))
	if connect.CodeOf(err) != connect.CodeResourceExhausted || !errors.Is(fromWire(err), lvs.ErrTableFull) {
		t.Errorf("clear: %v", err)
	}
	d.refusal = nil
	stream, err := client.ListConnections(t.Context(), connect.NewRequest(&fairleadv1.ListConnectionsRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	got := 0
	for stream.Receive() {
		got += len(stream.Msg().Connections)
	}
	if got != 3 || stream.Err() != nil {
		t.Errorf("%d connections, %v, want 3", got, stream.Err())
	}
}

// BenchmarkConnections is one connection from the table of a director to its
// client, through the socket.
func BenchmarkConnections(b *testing.B) {
	c := serve(b, &recorder{connections: b.N})
	b.ReportAllocs()
	b.ResetTimer()
	got := 0
	if err := c.Connections(b.Context(), func(lvs.Connection) error { got++; return nil }); err != nil || got != b.N {
		b.Fatalf("%d connections, %v", got, err)
	}
}
