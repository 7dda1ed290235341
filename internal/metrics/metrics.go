package metrics

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A Source is what the metrics are of; a director is one.
type Source interface {
	Status(context.Context) (api.Status, error)
	Services(context.Context) ([]lvs.ServiceStatus, error)
}

const (
	// scrapeTimeout bounds how long one answer may take.
	scrapeTimeout = 10 * time.Second
	// scrapesAtOnce bounds what many askers cost.
	scrapesAtOnce = 4
)

// NewHandler answers with the metrics of a source, and of this process, in the
// formats of Prometheus. Errors of the source are answered with status 500, and
// logged.
func NewHandler(source Source, log *slog.Logger) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collector{source},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ErrorHandling:       promhttp.HTTPErrorOnError,
		DisableCompression:  true,
		MaxRequestsInFlight: scrapesAtOnce,
		Timeout:             scrapeTimeout,
		EnableOpenMetrics:   true,
	})
}

// The labels of a service and of a real server, as node_exporter has them. One of
// a mark has local_mark ("00000007", hexadecimal) in place of address and port.
var (
	serviceLabels = []string{"local_address", "local_port", "local_mark", "proto"}
	serverLabels  = []string{"local_address", "local_port", "local_mark", "remote_address", "remote_port", "proto"}
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("fairlead_"+name, help, labels, nil)
}

// counters are the names of lvs.Counters.
type counters struct {
	connections, inPackets, outPackets, inBytes, outBytes *prometheus.Desc
}

func newCounters(prefix, of string, labels []string) counters {
	return counters{
		desc(prefix+"connections_total", "Connections that were made, of "+of+".", labels...),
		desc(prefix+"incoming_packets_total", "Packets from clients, of "+of+".", labels...),
		desc(prefix+"outgoing_packets_total", "Packets to clients that passed the director, of "+of+".", labels...),
		desc(prefix+"incoming_bytes_total", "IP bytes from clients, of "+of+".", labels...),
		desc(prefix+"outgoing_bytes_total", "IP bytes to clients that passed the director, of "+of+".", labels...),
	}
}

func (c counters) collect(to chan<- prometheus.Metric, now lvs.Counters, labels []string) {
	for _, one := range []struct {
		desc  *prometheus.Desc
		value uint64
	}{
		{c.connections, now.Connections},
		{c.inPackets, now.InPackets},
		{c.outPackets, now.OutPackets},
		{c.inBytes, now.InBytes},
		{c.outBytes, now.OutBytes},
	} {
		to <- prometheus.MustNewConstMetric(one.desc, prometheus.CounterValue, float64(one.value), labels...)
	}
}

var (
	build   = desc("build_info", "The director's version; always 1.", "version")
	started = desc("uptime_seconds", "For how long the daemon has run; forwarding may be older.")

	attached = desc("interface_info", "An interface that the data plane is attached to, and how; always 1.", "interface", "mode")
	size     = desc("connection_table_entries", "Entries that the connection table has.")
	used     = desc("connection_table_used_entries", "Entries in use when the table was last swept.")
	sweeps   = desc("sweep_duration_seconds", "How long the sweeps of the connection table took.")
	expired  = desc("sweep_expired_total", "Entries that the sweeps ended.")
	verdicts = desc("verdicts_total", "How often packets left the data plane by this way out, since it was loaded.", "verdict", "kind")

	ofService = newCounters("", "a virtual service", serviceLabels)
	ofServer  = newCounters("backend_", "a real server", serverLabels)

	weight     = desc("backend_weight", "The weight that new connections are shared out by.", serverLabels...)
	active     = desc("backend_connections_active", "Active connections.", serverLabels...)
	inactive   = desc("backend_connections_inactive", "Inactive connections.", serverLabels...)
	persistent = desc("backend_connections_persistent", "Templates of persistence.", serverLabels...)
	retries    = desc("backend_retries_total", "First packets of clients that came again before the real server had answered.", serverLabels...)
	resets     = desc("backend_resets_total", "Connections that the real server refused or broke off; seen with masquerading alone.", serverLabels...)
	reachable  = desc("backend_next_hop_up", "Whether there is a way for packets to the real server: 1, or 0.", serverLabels...)
)

var (
	healthy = desc("backend_health_up", "Whether checks find the real server up: 1, or 0.", serverLabels...)
	since   = desc("backend_health_since_seconds", "When it came to that, in seconds since 1970.", serverLabels...)
	latency = desc("backend_health_check_seconds", "How long its slowest check took last.", serverLabels...)
	cause   = desc("backend_health_cause", "Why the real server is down, or its last check failed; 1 while it is so.",
		append(slices.Clone(serverLabels), "cause")...)
	suspected = desc("backend_suspected_seconds", "When clients' packets last brought its checks forward, in seconds since 1970.", serverLabels...)
	quorum    = desc("quorum_lost", "Whether the virtual service has fewer live real servers than it needs: 1, or 0.", serviceLabels...)
)

// A collector asks its source each time it is asked.
type collector struct{ source Source }

// Describe implements [prometheus.Collector]. It describes nothing: which metrics
// there are depends on what the director has.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements [prometheus.Collector].
func (c collector) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	status, err := c.source.Status(ctx)
	if err != nil {
		to <- prometheus.NewInvalidMetric(build, err)
		return
	}
	services, err := c.source.Services(ctx)
	if err != nil {
		to <- prometheus.NewInvalidMetric(ofService.connections, err)
		return
	}
	collectStatus(to, status)
	for i := range services {
		collectService(to, &services[i])
	}
}

func collectStatus(to chan<- prometheus.Metric, s api.Status) {
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	gauge(build, 1, s.Version)
	gauge(started, s.Uptime.Seconds())
	for _, i := range s.Interfaces {
		gauge(attached, 1, i.Name, i.Mode)
	}
	gauge(size, float64(s.TableSize))
	gauge(used, float64(s.TableUsed))
	to <- prometheus.MustNewConstSummary(sweeps, s.Sweeps.Count, s.Sweeps.Time.Seconds(), nil)
	to <- prometheus.MustNewConstMetric(expired, prometheus.CounterValue, float64(s.Sweeps.Expired))
	for _, v := range s.Verdicts {
		to <- prometheus.MustNewConstMetric(verdicts, prometheus.CounterValue, float64(v.Packets), v.Name, v.Kind)
	}
}

func collectService(to chan<- prometheus.Metric, s *lvs.ServiceStatus) {
	address, port, mark, proto := localLabels(s.ServiceKey)
	ofService.collect(to, s.Counters, []string{address, port, mark, proto})
	for _, server := range s.All() {
		labels := []string{address, port, mark, server.Address.String(), strconv.Itoa(int(server.Port)), proto}
		ofServer.collect(to, server.Counters, labels)
		to <- prometheus.MustNewConstMetric(retries, prometheus.CounterValue, float64(server.Retries), labels...)
		to <- prometheus.MustNewConstMetric(resets, prometheus.CounterValue, float64(server.Resets), labels...)
		hop := 0.0
		if server.NextHop.Usable() {
			hop = 1
		}
		for _, one := range []struct {
			desc  *prometheus.Desc
			value float64
		}{
			{weight, float64(server.Weight)},
			{active, float64(server.Active)},
			{inactive, float64(server.Inactive)},
			{persistent, float64(server.Persistent)},
			{reachable, hop},
		} {
			to <- prometheus.MustNewConstMetric(one.desc, prometheus.GaugeValue, one.value, labels...)
		}
		collectHealth(to, &server.Health, labels)
	}
	if s.Quorum.Needed > 0 {
		lost := 0.0
		if s.Quorum.Lost {
			lost = 1
		}
		to <- prometheus.MustNewConstMetric(quorum, prometheus.GaugeValue, lost, address, port, mark, proto)
	}
}

// collectHealth tells nothing of a real server without checks, or without a verdict.
func collectHealth(to chan<- prometheus.Metric, h *lvs.HealthStatus, labels []string) {
	if !h.Suspected.IsZero() {
		to <- prometheus.MustNewConstMetric(suspected, prometheus.GaugeValue, float64(h.Suspected.UnixMilli())/1000, labels...)
	}
	up := 0.0
	switch h.State {
	case lvs.HealthUp:
		up = 1
	case lvs.HealthDown:
	default:
		return
	}
	to <- prometheus.MustNewConstMetric(healthy, prometheus.GaugeValue, up, labels...)
	to <- prometheus.MustNewConstMetric(since, prometheus.GaugeValue, float64(h.Since.UnixMilli())/1000, labels...)
	to <- prometheus.MustNewConstMetric(latency, prometheus.GaugeValue, h.Latency.Seconds(), labels...)
	if h.Cause != "" {
		to <- prometheus.MustNewConstMetric(cause, prometheus.GaugeValue, 1, slices.Concat(labels, []string{h.Cause})...)
	}
}

// localLabels returns what names a service. The services of a mark in the two
// families are told apart by the address: "" and "::".
func localLabels(key lvs.ServiceKey) (address, port, mark, proto string) {
	if key.Mark != 0 {
		if key.Address.Is6() {
			address = key.Address.String()
		}
		return address, "0", fmt.Sprintf("%08X", key.Mark), "FWM"
	}
	return key.Address.String(), strconv.Itoa(int(key.Port)), "", key.Protocol.String()
}
