package director

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A trace is told of real packets, and ends when the daemon stops.
func TestTraceThroughDaemon(t *testing.T) {
	director, server := newWire(t)
	runDir := newRunDir(t)
	client, ctx := connect(t, runDir)
	director.in(t, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: vip.Address.AsSlice(), Mask: net.CIDRMask(32, 32)}})
	})
	daemon := director.startDirector(t, runDir)
	if err := client.AddService(ctx, wlc(vip)); err != nil {
		t.Fatal(err)
	}

	packets := make(chan *lvs.TracedPacket, 100)
	begun, ended := make(chan struct{}), make(chan error, 1)
	filter := lvs.TraceFilter{Virtual: lvs.Endpoint{Prefix: netip.PrefixFrom(vip.Address, 32)}}
	go func() {
		ended <- client.Trace(ctx, filter, func(report lvs.TraceReport) error {
			if report.Packet == nil {
				close(begun)
				return nil
			}
			packets <- report.Packet
			return nil
		})
	}()
	select {
	case <-begun:
	case err := <-ended:
		t.Fatal(err)
	}

	// A service without real servers: the director answers with ICMP.
	server.in(t, func() error {
		dialer := net.Dialer{Timeout: waitLimit}
		conn, err := dialer.DialContext(ctx, "tcp", netip.AddrPortFrom(vip.Address, vip.Port).String())
		if err == nil {
			return errors.Join(errors.New("somebody answered"), conn.Close())
		}
		return nil
	})
	told := <-packets
	if told.Verdict != "answer-no-server" || told.Flags != lvs.TCPSyn || told.Choice.By != lvs.ChosenByScheduler ||
		told.Choice.Why != "the service has no real server" {
		t.Errorf("told %+v", told)
	}
	if told.In.InterfaceName != "eth0" || told.Out == nil || told.Out.InterfaceName != "eth0" ||
		told.In.Source != macOf(t, server) || told.Out.Destination != macOf(t, server) || told.Out.SourceIP != vip.Address {
		t.Errorf("came in as %+v, left as %+v", told.In, told.Out)
	}

	if err := daemon.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), errStopping.Error()) {
		t.Errorf("the trace ended with %v, want %v", err, errStopping)
	}
	if err := daemon.Wait(); err != nil {
		t.Errorf("stop: %v", err)
	}
	director.unload(t, runDir)
}

func TestTraceReports(t *testing.T) {
	d, err := newDirector(newMemoryPlane(), newFakeWatcher(), slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []lvs.TraceReport
	err = d.Trace(t.Context(), lvs.TraceFilter{Count: 7}, func(r lvs.TraceReport) error {
		got = append(got, r)
		return nil
	})
	if err != nil || len(got) != 1 || got[0].Lost != 7 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestFilterText(t *testing.T) {
	filter := lvs.TraceFilter{
		Protocol: lvs.UDP, Client: lvs.Endpoint{Port: 7, Prefix: netip.MustParsePrefix("203.0.113.0/24")},
		Virtual: lvs.Endpoint{Prefix: netip.MustParsePrefix("192.0.2.100/32")},
	}
	for want, f := range map[string]lvs.TraceFilter{"all": {}, "UDP from 203.0.113.0/24:7 to 192.0.2.100": filter} {
		if got := filterText(f); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
