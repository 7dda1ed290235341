package dataplane

import (
	"bytes"
	"net/netip"
	"reflect"
	"testing"
	"unsafe"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// bytesOf is how a value lies in memory.
func bytesOf[T any](value *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(value)), unsafe.Sizeof(*value))
}

func TestAddresses(t *testing.T) {
	for text, want := range map[string][]byte{
		"192.0.2.1":    {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1},
		"0.0.0.0":      {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0},
		"2001:db8::1":  {0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1},
		"::":           make([]byte, 16),
		"fe80::1:2:3":  {0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0, 3},
		"198.51.100.9": {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 51, 100, 9},
	} {
		addr := netip.MustParseAddr(text)
		got := toAddress(addr)
		if !bytes.Equal(bytesOf(&got), want) {
			t.Errorf("%s lies as %x, want %x", text, bytesOf(&got), want)
		}
		if back := fromAddress(got); back != addr {
			t.Errorf("%s came back as %s", text, back)
		}
	}
}

func TestPorts(t *testing.T) {
	for port := range 1 << 16 {
		wire := toPort(uint16(port))
		if !bytes.Equal(bytesOf(&wire), []byte{byte(port >> 8), byte(port)}) {
			t.Fatalf("port %d lies as %x", port, bytesOf(&wire))
		}
		if back := fromPort(wire); int(back) != port {
			t.Fatalf("port %d came back as %d", port, back)
		}
	}
}

func TestServiceKeys(t *testing.T) {
	for _, key := range []lvs.ServiceKey{
		{Protocol: lvs.TCP, Address: netip.MustParseAddr("192.0.2.10"), Port: 80},
		{Protocol: lvs.UDP, Address: netip.MustParseAddr("2001:db8::10"), Port: 53},
		{Protocol: lvs.TCP, Address: netip.MustParseAddr("192.0.2.10")},
	} {
		if back := fromServiceKey(toServiceKey(key)); back != key {
			t.Errorf("%s came back as %s", key, back)
		}
	}
}

func TestNextHopsConvert(t *testing.T) {
	hop := lvs.NextHop{
		InterfaceIndex: 7, VLAN: 9, MTU: 1500,
		Source: lvs.MAC{2, 0, 0, 0, 0, 1}, Destination: lvs.MAC{2, 3, 4, 5, 6, 7},
	}
	got := toNextHop(hop)
	if want := []byte{2, 3, 4, 5, 6, 7, 2, 0, 0, 0, 0, 1}; !bytes.Equal(bytesOf(&got.DestinationSource), want) {
		t.Errorf("MAC addresses lie as %x, want %x", bytesOf(&got.DestinationSource), want)
	}
	if back := fromNextHop(got); back != hop {
		t.Errorf("%+v came back as %+v", hop, back)
	}
	hop.MTU = 65536 // loopback's
	if got := toNextHop(hop); got.Mtu != 65535 {
		t.Errorf("an MTU of 65536 became %d", got.Mtu)
	}
	hop.Problem = "no route"
	if got := toNextHop(hop); got != (directorNextHop{}) {
		t.Errorf("an unusable hop became %+v", got)
	}
}

func TestCountersConvert(t *testing.T) {
	want := lvs.Counters{Connections: 1, InPackets: 2, OutPackets: 3, InBytes: 4, OutBytes: 5}
	if got := fromCounters(toCounters(want)); got != want {
		t.Errorf("%+v came back as %+v", want, got)
	}
}

func TestSchedulersConvert(t *testing.T) {
	for name, value := range schedulers {
		if !HasScheduler(name) || fromScheduler(value) != name {
			t.Errorf("scheduler %s came back as %q", name, fromScheduler(value))
		}
	}
	for _, name := range []lvs.Scheduler{"", "none", "nosuch"} {
		if HasScheduler(name) {
			t.Errorf("has scheduler %q", name)
		}
	}
	if got := fromScheduler(directorSchedulerSCHEDULER_NONE); got != "" {
		t.Errorf("no scheduler is called %q", got)
	}
}

func TestConnectionStatesAgree(t *testing.T) {
	for state, value := range map[lvs.ConnectionState]directorConnectionState{
		lvs.StateNone: directorConnectionStateSTATE_NONE, lvs.StateEstablished: directorConnectionStateSTATE_ESTABLISHED,
		lvs.StateSynSent: directorConnectionStateSTATE_SYN_SENT, lvs.StateSynRecv: directorConnectionStateSTATE_SYN_RECV,
		lvs.StateFinWait: directorConnectionStateSTATE_FIN_WAIT, lvs.StateTimeWait: directorConnectionStateSTATE_TIME_WAIT,
		lvs.StateClose: directorConnectionStateSTATE_CLOSE, lvs.StateCloseWait: directorConnectionStateSTATE_CLOSE_WAIT,
		lvs.StateLastAck: directorConnectionStateSTATE_LAST_ACK, lvs.StateListen: directorConnectionStateSTATE_LISTEN,
		lvs.StateSynAck: directorConnectionStateSTATE_SYN_ACK, lvs.StateUDP: directorConnectionStateSTATE_UDP,

		lvs.StateSCTPInit1: directorConnectionStateSTATE_SCTP_INIT1, lvs.StateSCTPInit: directorConnectionStateSTATE_SCTP_INIT,
		lvs.StateSCTPCookieSent:       directorConnectionStateSTATE_SCTP_COOKIE_SENT,
		lvs.StateSCTPCookieReplied:    directorConnectionStateSTATE_SCTP_COOKIE_REPLIED,
		lvs.StateSCTPCookieWait:       directorConnectionStateSTATE_SCTP_COOKIE_WAIT,
		lvs.StateSCTPCookie:           directorConnectionStateSTATE_SCTP_COOKIE,
		lvs.StateSCTPCookieEchoed:     directorConnectionStateSTATE_SCTP_COOKIE_ECHOED,
		lvs.StateSCTPEstablished:      directorConnectionStateSTATE_SCTP_ESTABLISHED,
		lvs.StateSCTPShutdownSent:     directorConnectionStateSTATE_SCTP_SHUTDOWN_SENT,
		lvs.StateSCTPShutdownReceived: directorConnectionStateSTATE_SCTP_SHUTDOWN_RECEIVED,
		lvs.StateSCTPShutdownAckSent:  directorConnectionStateSTATE_SCTP_SHUTDOWN_ACK_SENT,
		lvs.StateSCTPRejected:         directorConnectionStateSTATE_SCTP_REJECTED,
		lvs.StateSCTPClosed:           directorConnectionStateSTATE_SCTP_CLOSED,
	} {
		if int(state) != int(value) {
			t.Errorf("%s is %d, the data plane's is %d", state, state, value)
		}
	}
}

// Types of the border hold numbers only, so that == compares all of them.
func TestBorderTypesAreComparable(t *testing.T) {
	for _, value := range []any{directorNextHop{}, directorServiceKey{}, directorInterface{}, directorCounters{}} {
		if !reflect.TypeOf(value).Comparable() {
			t.Errorf("%T is not comparable", value)
		}
	}
}
