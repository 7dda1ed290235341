package director

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A running director explains packets, and none of them leaves a trace.
func TestExplainThroughDaemon(t *testing.T) {
	director, server := newWire(t)
	runDir := newRunDir(t)
	client, ctx := connect(t, runDir)
	daemon := director.startDirector(t, runDir)
	rs := routed("192.0.2.11", 80)
	if err := errors.Join(client.AddService(ctx, wlc(vip)), client.AddServer(ctx, vip, rs)); err != nil {
		t.Fatal(err)
	}

	q := lvs.Question{
		Protocol: lvs.TCP, Client: netip.MustParseAddrPort("192.0.2.20:40000"),
		Virtual: netip.AddrPortFrom(vip.Address, vip.Port), Flags: lvs.TCPSyn,
	}
	for range 3 {
		e, err := client.Explain(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		if e.Verdict != "forward" || e.Choice.Server != rs.RealServerKey || e.Before != nil ||
			e.After == nil || e.After.State != lvs.StateSynRecv || e.Service == nil || e.Service.ServiceKey != vip {
			t.Errorf("explained %+v", e)
		}
		if e.In.InterfaceName != "eth0" || e.In.Destination != macOf(t, director) || e.In.Source == (lvs.MAC{}) {
			t.Errorf("frame that comes in: %+v", e.In)
		}
		if e.Out == nil || e.Out.InterfaceName != "eth0" || e.Out.Destination != macOf(t, server) ||
			e.Out.Source != macOf(t, director) || e.Out.DestinationIP != vip.Address || e.Out.TTL != explainedTTL-1 {
			t.Errorf("frame that is sent: %+v", e.Out)
		}
	}
	service, err := client.Service(ctx, vip)
	if err != nil || service.Counters != (lvs.Counters{}) || service.Servers[0].Active+service.Servers[0].Inactive != 0 {
		t.Errorf("after explanations: %+v, %v", service, err)
	}
	if err := client.Connections(ctx, func(c lvs.Connection) error {
		t.Errorf("left by an explanation: %+v", c)
		return nil
	}); err != nil {
		t.Error(err)
	}

	q.Flags = lvs.TCPAck
	if e, err := client.Explain(ctx, q); err != nil || e.Verdict != "pass-no-connection" || e.Out != nil {
		t.Errorf("of no connection: %+v, %v", e, err)
	}
	q.Interface = "eth7"
	_, err = client.Explain(ctx, q)
	expect(t, err, lvs.ErrInvalid, "eth0")

	if err := daemon.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := daemon.Wait(); err != nil {
		t.Errorf("stop: %v", err)
	}
	director.unload(t, runDir)
}

// The frame is the one that was asked for.
func TestExplainedFrame(t *testing.T) {
	mac := []byte{2, 0, 0, 0, 0, 10}
	for _, test := range []struct {
		q      lvs.Question
		length int // Ethernet's least is 60
	}{
		{lvs.Question{Protocol: lvs.TCP, Client: netip.MustParseAddrPort("203.0.113.5:1"), Virtual: netip.MustParseAddrPort("192.0.2.1:2"), Flags: lvs.TCPFin | lvs.TCPAck | lvs.TCPCwr}, 60},
		{lvs.Question{Protocol: lvs.UDP, Client: netip.MustParseAddrPort("203.0.113.5:1"), Virtual: netip.MustParseAddrPort("192.0.2.1:2")}, 60},
		{lvs.Question{Protocol: lvs.TCP, Client: netip.MustParseAddrPort("[2001:db8::5]:1"), Virtual: netip.MustParseAddrPort("[2001:db8::1]:2")}, 74},
		{lvs.Question{Protocol: lvs.UDP, Client: netip.MustParseAddrPort("[2001:db8::5]:1"), Virtual: netip.MustParseAddrPort("[2001:db8::1]:2")}, 62},
	} {
		frame, err := explainedFrame(test.q, mac)
		if err != nil {
			t.Fatal(err)
		}
		if len(frame) != test.length || lvs.MAC(frame[:6]) != lvs.MAC(mac) {
			t.Errorf("%+v: %d bytes to %s, want %d to %s", test.q, len(frame), lvs.MAC(frame[:6]), test.length, lvs.MAC(mac))
		}
		header := 20
		if test.q.Virtual.Addr().Is6() {
			header = 40
		}
		const ethernet, flagsOffset = 14, 13
		if test.q.Protocol != lvs.TCP {
			continue
		}
		if flags := lvs.TCPFlags(frame[ethernet+header+flagsOffset]); flags != test.q.Flags {
			t.Errorf("%+v: flags %s", test.q, flags)
		}
	}
}
