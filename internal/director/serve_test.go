package director

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/dataplane"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

func TestPathsBesideTheAPI(t *testing.T) {
	b := newBench(t, newMemoryPlane())
	b.must(t, b.AddService(t.Context(), wlc(vip)), b.sweep())
	server := httptest.NewServer(b.newMux(api.NewHandler(b)))
	defer server.Close()
	get := func(path string, code int, says string) {
		t.Helper()
		response, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != code || !strings.Contains(string(body), says) {
			t.Errorf("%s: %s, %v, %q; want %d and %q", path, response.Status, err, body, code, says)
		}
	}
	get("/metrics", http.StatusOK, `fairlead_connections_total{local_address="192.0.2.100"`)
	get("/healthz", http.StatusOK, "ok")
	get("/readyz", http.StatusOK, "ok")
	get("/nosuch", http.StatusNotFound, "")

	b.must(t, b.AddServer(t.Context(), vip, routed("192.0.2.11", 80)), b.drainHost(t.Context(), time.Minute, lvs.DrainKeep))
	get("/healthz", http.StatusOK, "ok")
	get("/readyz", http.StatusServiceUnavailable, "the host is drained")

	stopping := make(chan struct{})
	b.stopping = stopping
	close(stopping)
	get("/healthz", http.StatusOK, "ok")
	get("/readyz", http.StatusServiceUnavailable, "the director stops")
}

// A lostInterface is an attacher whose interface is gone, until it is back.
type lostInterface struct{ back bool }

var errLost = errors.New("no such interface")

func (l *lostInterface) RefreshInterfaces() error { return errLost }
func (l *lostInterface) Attach([]string) ([]dataplane.Attachment, error) {
	if !l.back {
		return nil, errLost
	}
	return []dataplane.Attachment{{Interface: "eth0", Mode: dataplane.ModeGeneric}}, nil
}

func TestReady(t *testing.T) {
	b := newBench(t, newMemoryPlane())
	now := time.Now()
	wants := func(at time.Time, says string) {
		t.Helper()
		err := b.ready(at)
		if (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want %q", err, says)
		}
	}
	wants(now, "")
	wants(now.Add(time.Minute), "not swept")
	b.must(t, b.sweep())
	wants(time.Now(), "")

	lost, log := &lostInterface{}, slog.New(slog.DiscardHandler)
	if err := b.interfaces.refresh(lost, nil, log); !errors.Is(err, errLost) {
		t.Errorf("refresh: %v", err)
	}
	wants(time.Now(), "an interface is lost")
	lost.back = true
	b.must(t, b.interfaces.refresh(lost, nil, log))
	wants(time.Now(), "")
}

// Only a daemon can end.
func TestHandOverWithoutDaemon(t *testing.T) {
	b := newBench(t, newMemoryPlane())
	if err := b.HandOver(t.Context(), "another"); err == nil {
		t.Error("handed over")
	}
	ended := false
	b.stop = func() { ended = true }
	if err := b.HandOver(t.Context(), "another"); err != nil || !ended {
		t.Errorf("%v, ended %t", err, ended)
	}
}
