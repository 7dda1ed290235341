package dataplane

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

const (
	sip4 = "192.0.2.10:5060"
	sip6 = "[2001:db8:2::10]:5060"
)

// invite is a message of SIP with that Call-ID.
func invite(call string) []byte {
	return []byte("INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.1\r\nCall-ID: " + call + "\r\n\r\n")
}

// sipService schedules calls one by one, so that each has to be known again.
func sipService(addr string) lvs.Service {
	svc := udpService(addr, lvs.RoundRobin)
	svc.PersistenceTimeout, svc.PersistenceEngine, svc.OnePacket = time.Minute, lvs.EngineSIP, true
	return svc
}

// serveCalls adds a service for calls, with eight real servers.
func serveCalls(t testing.TB, p *Plane, svc lvs.Service) {
	t.Helper()
	mustAddService(t, p, svc)
	for i := range 8 {
		server := fmt.Sprintf("198.51.100.%d:5060", 11+i)
		if svc.Address.Is6() {
			server = fmt.Sprintf("[2001:db8:1::%x]:5060", 11+i)
		}
		mustAddServer(t, p, svc, server, 1)
	}
}

// callsOf returns the Call-IDs of templates, and the server of each.
func callsOf(p *Plane) map[string]string {
	calls := map[string]string{}
	for c := range p.Connections() {
		if c.PersistenceEngine == lvs.EngineSIP {
			calls[c.PersistenceData] = c.Server.String()
		}
	}
	return calls
}

// keptCalls is how many Call-IDs the data plane keeps.
func keptCalls(t testing.TB, p *Plane) (n int) {
	t.Helper()
	var slot uint32
	var id directorCallId
	all := p.maps.CallIds.Iterate()
	for all.Next(&slot, &id) {
		n++
	}
	if err := all.Err(); err != nil {
		t.Fatal(err)
	}
	return n
}

// Of one client's many calls, some have the same hash of sixteen bits: each is known by the whole Call-ID
// all the same, and is forgotten when its template ends.
func TestCallsAreKnownByTheWholeCallID(t *testing.T) {
	const calls = 1000
	p := newTestPlane(t)
	for _, path := range []struct{ client, vip string }{{client4, sip4}, {client6, sip6}} {
		t.Run(path.vip, func(t *testing.T) {
			serveCalls(t, p, sipService(path.vip))
			first := map[string]lvs.MAC{}
			for round := range 2 {
				for i := range calls {
					call := fmt.Sprintf("%d@example.com", i)
					action, out := mustRun(t, p, udpFrame(path.client, path.vip, invite(call)...))
					if action != xdpTX {
						t.Fatalf("call %s: XDP action %d", call, action)
					}
					if to := lvs.MAC(out[:6]); round == 0 {
						first[call] = to
					} else if to != first[call] {
						t.Errorf("call %s went to %s, and to %s before", call, to, first[call])
					}
				}
			}
			if got := len(callsOf(p)); got != calls {
				t.Errorf("%d calls have templates, want %d", got, calls)
			}
			reset(t, p)
			if got := keptCalls(t, p); got != 0 {
				t.Errorf("%d Call-IDs are kept of templates that are over", got)
			}
		})
	}
}

// Where a Call-ID lies: behind options, tags and extension headers, and not beyond what is searched.
func TestWhereCallIDsAreFound(t *testing.T) {
	p := newTestPlane(t)
	serveCalls(t, p, sipService(sip4))
	serveCalls(t, p, sipService(sip6))
	searched := int(directorLimitCALL_ID_SEARCHED)
	// padded has the byte behind a Call-ID as the last of so many.
	padded := func(size int) []byte {
		end := "\r\nCall-ID: far\r"
		return []byte(strings.Repeat("x", size-len(end)) + end)
	}
	options := ethernet(etherIPv4, ipv4Packet(addrOf(client4), addrOf(sip4), protoUDP, []byte{1, 1, 1, 0}, udp(client4, sip4, invite("a")...)))
	for _, test := range []struct {
		name    string
		frame   []byte
		verdict string
	}{
		{"plain", udpFrame(client4, sip4, invite("a")...), "forward"},
		{"options", options, "forward"},
		{"tagged", ethernet(etherIPv4, udpFrame(client4, sip4, invite("a")...)[14:], vlanTag{0x8100, 7}), "forward"},
		{"ipv6", udpFrame(client6, sip6, invite("a")...), "forward"},
		{"extension headers", frame6(protoUDP, udp(client6, sip6, invite("a")...), extension{protoHopByHop, 0, 8}, extension{protoDestination, 1, 16}), "forward"},
		{"no data", udpFrame(client4, sip4), "drop-no-call-id"},
		{"no Call-ID", udpFrame(client4, sip4, 'x'), "drop-no-call-id"},
		{"no byte behind it", udpFrame(client4, sip4, []byte("\r\nCall-ID: a")...), "drop-no-call-id"},
		{"with the last byte", udpFrame(client4, sip4, padded(1400)...), "forward"},
		{"padding", append(udpFrame(client4, sip4, []byte("\r\nCall-ID: a")...), '\r'), "drop-no-call-id"},
		{"too far behind", udpFrame(client4, sip4, padded(searched+1)...), "drop-no-call-id"},
	} {
		t.Run(test.name, func(t *testing.T) {
			action := uint32(xdpTX)
			if test.verdict != "forward" {
				action = xdpDrop
			}
			wantVerdict(t, p, test.frame, test.verdict, action)
			tc := map[uint32]uint32{xdpTX: tcRedirect, xdpDrop: tcDrop}[action]
			if test.name != "tagged" && test.name != "too far behind" {
				wantInTC(t, p, test.frame, skbContext{}, test.verdict, tc)
			}
		})
	}
	setHop(t, p, "198.51.100.11:5060", lvs.NextHop{MTU: 9000})
	t.Run("as far as is searched", func(t *testing.T) {
		mustRun(t, p, udpFrame(client4, sip4, padded(searched)...))
		if _, ok := callsOf(p)["far"]; !ok {
			t.Error("the Call-ID that ends with the last byte that is searched has no template")
		}
	})
}

// The first fragment of a datagram has the Call-ID, and the others follow it.
func TestCallIDsInFragments(t *testing.T) {
	p := newTestPlane(t)
	for _, path := range []struct{ client, vip string }{{client4, sip4}, {client6, sip6}} {
		serveCalls(t, p, sipService(path.vip))
		whole := udpFrame(path.client, path.vip, append(invite("fragmented"), make([]byte, 3000)...)...)
		for _, fragment := range fragments(whole, 7, 1400) {
			wantVerdict(t, p, fragment, "forward", xdpTX)
		}
		late := udpFrame(path.client, path.vip, append([]byte(strings.Repeat("x", 1500)), invite("late")...)...)
		pieces := fragments(late, 8, 1400)
		wantVerdict(t, p, pieces[0], "drop-no-call-id", xdpDrop)
		wantVerdict(t, p, pieces[1], "drop-fragment", xdpDrop)
	}
	if diff := cmp.Diff(1, len(callsOf(p))); diff != "" {
		t.Errorf("calls by name, -want +got:\n%s", diff)
	}
}

// Without room for one more Call-ID, calls have a real server by hash, the same each time; no
// entry of the connection table is lost.
func TestNoRoomForCallIDs(t *testing.T) {
	p := newTestPlane(t)
	serveCalls(t, p, sipService(sip4))
	const room = int(directorLimitMAX_CALL_IDS)
	slots, ids := make([]uint32, room), make([]directorCallId, room)
	for i := range slots {
		slots[i] = ^uint32(i)
	}
	if _, err := p.maps.CallIds.BatchUpdate(slots, ids, &ebpf.BatchOptions{}); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		frame := udpFrame(client4, sip4, invite(fmt.Sprint(i))...)
		first := lvs.MAC(wantVerdict(t, p, frame, "forward-no-entry", xdpTX)[:6])
		if again := lvs.MAC(wantVerdict(t, p, frame, "forward-no-entry", xdpTX)[:6]); again != first {
			t.Errorf("call %d went to %s, then to %s", i, first, again)
		}
	}
	checkTable(t, p)
	if _, err := p.maps.CallIds.BatchDelete(slots, nil); err != nil {
		t.Fatal(err)
	}
	wantVerdict(t, p, udpFrame(client4, sip4, invite("0")...), "forward", xdpTX)
	if got := keptCalls(t, p); got != 1 {
		t.Errorf("%d Call-IDs are kept, want 1", got)
	}
}

// A director that takes over knows the engine, and the calls.
func TestTakingCallsOver(t *testing.T) {
	dir := testhost.MountBPF(t)
	p := openPlane(t, dir, 1000)
	serveCalls(t, p, sipService(sip4))
	for _, call := range []string{"one@example.com", "two"} {
		wantVerdict(t, p, udpFrame(client4, sip4, invite(call)...), "forward", xdpTX)
	}
	before := callsOf(p)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p = reopenPlane(t, dir)
	if got := statusOf(t, p, sipService(sip4).ServiceKey).PersistenceEngine; got != lvs.EngineSIP {
		t.Errorf("engine %q was read back", got)
	}
	if diff := cmp.Diff(before, callsOf(p)); diff != "" || len(before) != 2 {
		t.Errorf("calls, -before +after:\n%s", diff)
	}
}
