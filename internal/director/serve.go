package director

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/metrics"
)

// The paths beside the API.
const (
	metricsPath = "/metrics"
	healthPath  = "/healthz"
	readyPath   = "/readyz"
)

// newMux returns what a director answers on its socket, or, with the API for other
// hosts, over the network.
func (d *Director) newMux(handler http.Handler) *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("/", handler)
	mux.Handle(metricsPath, metrics.NewHandler(d, d.log))
	mux.HandleFunc(healthPath, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	mux.HandleFunc(readyPath, func(w http.ResponseWriter, _ *http.Request) {
		if err := d.ready(time.Now()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, "ok\n")
	})
	return mux
}

// lateSweep is after how long without a sweep something is wrong.
const lateSweep = 30 * time.Second

// ready returns why the director does not do all that it is for, nil if it does.
func (d *Director) ready(now time.Time) error {
	select {
	case <-d.stopping:
		return errors.New("the director stops")
	default:
	}
	if d.hostDrained.Load() {
		return errors.New("the host is drained: it takes no new connections, and stops when nothing is left or at the deadline")
	}
	if problem := d.interfaces.problem(); problem != "" {
		return errors.New(problem)
	}
	last := d.swept.lastEnd()
	if last.IsZero() {
		last = d.started
	}
	if late := now.Sub(last); late > lateSweep {
		return fmt.Errorf("the connection table was not swept for %s", late.Round(time.Second))
	}
	return nil
}

// listen opens the network's listeners of a configuration.
func listen(cfg Config) (listeners []net.Listener, err error) {
	for _, address := range cfg.Listen {
		l, err := api.ListenTLS(address, cfg.TLS)
		if err != nil {
			for _, l := range listeners {
				l.Close()
			}
			return nil, err
		}
		cfg.Log.Info("listening", "address", l.Addr())
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// serve answers on the socket and on the network until ctx ends.
func (d *Director) serve(ctx context.Context, group *errgroup.Group, socket net.Listener, network []net.Listener) {
	group.Go(func() error { return api.Serve(ctx, socket, d.newMux(api.NewHandler(d)), d.log) })
	for _, l := range network {
		group.Go(func() error { return api.Serve(ctx, l, d.newMux(api.NewRemoteHandler(d)), d.log) })
	}
}
