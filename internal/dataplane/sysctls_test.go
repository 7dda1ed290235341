package dataplane

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

func mustSet(t testing.TB, p *Plane, key lvs.ServiceKey, values map[string]int32) {
	t.Helper()
	var changes []lvs.SysctlChange
	for name, value := range values {
		changes = append(changes, lvs.SysctlChange{Name: name, Value: value})
	}
	if err := p.SetSysctls(key, changes); err != nil {
		t.Fatal(err)
	}
}

func resetSysctl(t testing.TB, p *Plane, key lvs.ServiceKey, name string) {
	t.Helper()
	if err := p.SetSysctls(key, []lvs.SysctlChange{{Name: name, Reset: true}}); err != nil {
		t.Fatal(err)
	}
}

func sysctl(t testing.TB, p *Plane, key lvs.ServiceKey, name string) lvs.SysctlValue {
	t.Helper()
	values, err := p.Sysctls(key)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(values, func(v lvs.SysctlValue) bool { return v.Name == name })
	if i < 0 {
		t.Fatalf("sysctl %s of %s is not there", name, key)
	}
	return values[i]
}

// Every sysctl has a place of its own, and its default there.
func TestSysctlPlaces(t *testing.T) {
	p := newTestPlane(t)
	places := map[string]string{}
	for _, s := range lvs.Sysctls() {
		state, isTimeout := timeoutStates[s.Name]
		slot, isOther := sysctlSlots[s.Name]
		if isTimeout == isOther {
			t.Errorf("%s has no place, or two", s.Name)
		}
		place := fmt.Sprintf("%v/%d/%d", isTimeout, state, slot)
		if other := places[place]; other != "" {
			t.Errorf("%s and %s have the same place", s.Name, other)
		}
		places[place] = s.Name
		if got := sysctl(t, p, lvs.ServiceKey{}, s.Name); got.Value != s.Default || got.Own {
			t.Errorf("%s is %d, want %d", s.Name, got.Value, s.Default)
		}
	}
	if len(timeoutStates)+len(sysctlSlots) != len(lvs.Sysctls()) {
		t.Errorf("%d places, %d sysctls", len(timeoutStates)+len(sysctlSlots), len(lvs.Sysctls()))
	}
	for _, s := range lvs.Sysctls() {
		value := s.Max
		if value == lvs.MaxTimeoutSeconds {
			value = 12345
		}
		mustSet(t, p, lvs.ServiceKey{}, map[string]int32{s.Name: value})
		if got := sysctl(t, p, lvs.ServiceKey{}, s.Name).Value; got != value {
			t.Errorf("%s is %d, set to %d", s.Name, got, value)
		}
		resetSysctl(t, p, lvs.ServiceKey{}, s.Name)
		if got := sysctl(t, p, lvs.ServiceKey{}, s.Name).Value; got != s.Default {
			t.Errorf("%s is %d, reset to %d", s.Name, got, s.Default)
		}
	}
}

// A service's own value holds for it alone; what it has not follows the director.
func TestServicePolicy(t *testing.T) {
	p := newTestPlane(t)
	one, _ := serveBoth(t, p)
	expires := func(client, vip, flags string) time.Duration {
		t.Helper()
		wantVerdict(t, p, tcpFrame(client, vip, flags), "forward", xdpTX)
		for c := range p.Connections() {
			if c.Client.String() == client {
				return c.Expires.Round(time.Second)
			}
		}
		t.Fatalf("no connection of %s", client)
		return 0
	}
	check := func(what string, wantOne, wantOther time.Duration) {
		t.Helper()
		// The second ACK takes the short way where there is one.
		for _, flags := range []string{"S", "A", "A"} {
			gotOne, gotOther := expires(client4, vip4, flags), expires(client6, vip6, flags)
			if flags == "A" && (gotOne != wantOne || gotOther != wantOther) {
				t.Errorf("%s: %s and %s, want %s and %s", what, gotOne, gotOther, wantOne, wantOther)
			}
		}
	}
	check("defaults", 900*time.Second, 900*time.Second)
	mustSet(t, p, one.ServiceKey, map[string]int32{"timeout_established": 50})
	check("its own", 50*time.Second, 900*time.Second)
	mustSet(t, p, lvs.ServiceKey{}, map[string]int32{"timeout_established": 70, "timeout_synrecv": 7})
	check("its own, the director's changed", 50*time.Second, 70*time.Second)
	if got := sysctl(t, p, one.ServiceKey, "timeout_synrecv"); got.Value != 7 || got.Own {
		t.Errorf("timeout_synrecv of the service: %+v, want the director's 7", got)
	}
	if got := sysctl(t, p, one.ServiceKey, "timeout_established"); got.Value != 50 || !got.Own {
		t.Errorf("timeout_established of the service: %+v, want its own 50", got)
	}

	// Of a service that is edited, of servers that come later or come back.
	if err := p.EditService(tcpService(vip4, lvs.WeightedRoundRobin)); err != nil {
		t.Fatal(err)
	}
	rs := lvs.RealServerKey{Address: addrOf(server4), Port: 80}
	if err := p.DeleteServer(one.ServiceKey, rs); err != nil {
		t.Fatal(err)
	}
	mustAddServer(t, p, one, server4, 1)
	check("edited, its server came back", 50*time.Second, 70*time.Second)

	resetSysctl(t, p, one.ServiceKey, "timeout_established")
	check("given up", 70*time.Second, 70*time.Second)
	if p.hasPolicy(p.services[one.ServiceKey]) {
		t.Error("the service has a policy of its own with nothing in it")
	}

	// Its place goes to another service, which is not to inherit anything.
	mustSet(t, p, one.ServiceKey, map[string]int32{"timeout_established": 50})
	if err := p.DeleteService(one.ServiceKey); err != nil {
		t.Fatal(err)
	}
	mustSweep(t, p)
	p.free.services = []uint32{p.free.services[len(p.free.services)-1]}
	mustAddService(t, p, one)
	mustAddServer(t, p, one, server4, 1)
	check("another service", 70*time.Second, 70*time.Second)

	if _, err := p.Sysctls(tcpService("192.0.2.77:80", "").ServiceKey); !errors.Is(err, lvs.ErrNoService) {
		t.Errorf("a service that is not there: %v", err)
	}
}

// Values survive the director, those of services too.
func TestSysctlsAreTakenOver(t *testing.T) {
	dir := testhost.MountBPF(t)
	p := openPlane(t, dir, 1000)
	svc := servedBy(t, p, lvs.RoundRobin, 2)
	gone := tcpService(vip6, lvs.RoundRobin)
	mustAddService(t, p, gone)
	mustAddServer(t, p, gone, server6, 1)
	mustSet(t, p, lvs.ServiceKey{}, map[string]int32{"sloppy_tcp": 1, "timeout_finwait": 33})
	mustSet(t, p, svc.ServiceKey, map[string]int32{"timeout_established": 44, "conn_reuse_mode": 3})
	mustSet(t, p, gone.ServiceKey, map[string]int32{"expire_nodest_conn": 1})
	wantVerdict(t, p, tcpFrame(client6, vip6, "S"), "forward", xdpTX)
	if err := p.DeleteService(gone.ServiceKey); err != nil {
		t.Fatal(err)
	}
	// As a director leaves it that was killed while it turned the servers.
	first := p.services[svc.ServiceKey].servers[0]
	p.view.servers.elements[first].Policy = noPolicy
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}

	p = reopenPlane(t, dir)
	for _, want := range []struct {
		key   lvs.ServiceKey
		name  string
		value int32
		own   bool
	}{
		{lvs.ServiceKey{}, "sloppy_tcp", 1, false}, {lvs.ServiceKey{}, "timeout_finwait", 33, false},
		{svc.ServiceKey, "timeout_established", 44, true}, {svc.ServiceKey, "conn_reuse_mode", 3, true},
		{svc.ServiceKey, "timeout_finwait", 33, false},
	} {
		if got := sysctl(t, p, want.key, want.name); got.Value != want.value || got.Own != want.own {
			t.Errorf("%s of %s: %+v, want %+v", want.name, want.key, got, want)
		}
	}
	for _, slot := range p.services[svc.ServiceKey].servers {
		if got := p.view.servers.elements[slot].Policy; got != p.services[svc.ServiceKey].policyIndex() {
			t.Errorf("server in slot %d follows policy %d", slot, got)
		}
	}
	// The service that is gone goes on ending its connections.
	if found := mustSweep(t, p); found.Expired != 1 || found.Used != 0 {
		t.Errorf("sweep found %+v, want the connection of the removed server ended", found)
	}
}

// Three of the modes of defence act when the table is nearly full, and no longer
// when it is not.
func TestDefenceFollowsTheTable(t *testing.T) {
	p := openPlane(t, testhost.MountBPF(t), 1000)
	servedBy(t, p, lvs.RoundRobin, 4)
	modes := []string{"drop_entry", "drop_packet", "secure_tcp"}
	check := func(what string, mode int32, acts bool) {
		t.Helper()
		for _, name := range modes {
			if got := sysctl(t, p, lvs.ServiceKey{}, name).Value; got != mode {
				t.Errorf("%s: %s is %d, want %d", what, name, got, mode)
			}
		}
		policy := &p.settings().Policy
		if (policy.Secure != 0) != acts || (policy.DropEntries != 0) != acts || (policy.DropRate != 0) != acts {
			t.Errorf("%s: secure_tcp %d, drop_entry %d, drop rate %d; want acting %v", what, policy.Secure, policy.DropEntries, policy.DropRate, acts)
		}
	}
	set := func(mode int32) {
		t.Helper()
		mustSet(t, p, lvs.ServiceKey{}, map[string]int32{modes[0]: mode, modes[1]: mode, modes[2]: mode})
	}
	set(1)
	check("an empty table", 1, false)
	set(2)
	check("2, an empty table", 1, false)
	set(3)
	check("always", 3, true)
	set(0)
	check("never", 0, false)

	set(1)
	// A sixteenth of 2048 slots is two pages of 64.
	for i := range 2048 - 64 {
		send(t, p, i, "S", "forward")
	}
	p.defended = false
	if found := mustSweep(t, p); found.Used < 2048-3*64 {
		t.Fatalf("sweep found %+v", found)
	}
	check("a full table", 2, true)
	if got := p.settings().Policy.DropRate; got != 2 {
		t.Errorf("one new connection of %d is dropped, want of 2: one page of two is free", got)
	}
	set(0)
	check("never, a full table", 0, false)
	set(2)
	check("a full table again", 2, true)
	advance(p, time.Hour)
	mustSweep(t, p)
	check("a table that is empty again", 1, false)
}

// drop_entry takes half-open entries at once; those with few packets that were
// idle for a minute by turns; and no others.
func TestDropEntry(t *testing.T) {
	p := newTestPlane(t)
	servedBy(t, p, lvs.RoundRobin, 1)
	udpSvc := udpService(vip4, lvs.RoundRobin)
	mustAddService(t, p, udpSvc)
	mustAddServer(t, p, udpSvc, "198.51.100.1:80", 1)
	open := func(i, packets int) {
		t.Helper()
		send(t, p, i, "S", "forward")
		for range packets - 1 {
			send(t, p, i, "A", "forward")
		}
	}
	defend := func() SweepResult {
		t.Helper()
		found, err := p.sweepTable(directorSweepRange{Defended: uint32(directorLimitDEFENCE_SHARE)})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	mustSet(t, p, lvs.ServiceKey{}, map[string]int32{"drop_entry": 3})
	const each = 8
	for i := range each {
		open(i, 1)     // half-open
		open(100+i, 4) // goes by turns
		open(200+i, 9) // has too many packets
		open(300+i, 3) // is closing
		send(t, p, 300+i, "FA", "forward")
		wantVerdict(t, p, udpFrame(clientOf(i), vip4), "forward", xdpTX) // goes by turns, each
	}
	if found := defend(); found.Expired != each {
		t.Errorf("%d entries given up, want the %d half-open ones", found.Expired, each)
	}
	// The clock runs on meanwhile: far from the minute on either side.
	advance(p, 30*time.Second)
	if found := defend(); found.Expired != 0 {
		t.Errorf("%d entries given up before their minute", found.Expired)
	}
	advance(p, 31*time.Second)
	if found := defend(); found.Expired != each+each/4 {
		t.Errorf("%d entries given up, want all %d of one packet and a fourth of %d of four", found.Expired, each, each)
	}
	checkTable(t, p)

	mustSet(t, p, lvs.ServiceKey{}, map[string]int32{"drop_entry": 0})
	open(400, 1)
	if found := defend(); found.Expired != 0 {
		t.Errorf("%d entries given up with drop_entry 0", found.Expired)
	}
	mustSet(t, p, udpSvc.ServiceKey, map[string]int32{"drop_entry": 3})
	if found := defend(); found.Expired != 0 {
		t.Errorf("%d entries of another service given up", found.Expired)
	}
	if !p.defended {
		t.Error("the sweep does not look for entries of the service that asks for it")
	}
}

// A service's own drop_packet leaves others alone.
func TestDropPacketOfAService(t *testing.T) {
	p := newTestPlane(t)
	one, _ := serveBoth(t, p)
	mustSet(t, p, one.ServiceKey, map[string]int32{"drop_packet": 3, "am_droprate": 3})
	for i := range 9 {
		verdict, action := "forward", uint32(xdpTX)
		if i%3 == 0 {
			verdict, action = "drop-defence", xdpDrop
		}
		wantVerdict(t, p, tcpFrame(clientOf(i), vip4, "S"), verdict, action)
		wantVerdict(t, p, tcpFrame(fmt.Sprintf("[2001:db8:3::%d]:1024", 1+i), vip6, "S"), "forward", xdpTX)
	}
	// Packets of connections are no new ones.
	wantVerdict(t, p, tcpFrame(clientOf(1), vip4, "A"), "forward", xdpTX)
}

// What a director does with its own values is compared with the kernel; what
// services do with theirs, here.
func TestStatesOfAService(t *testing.T) {
	p := newTestPlane(t)
	svc := servedBy(t, p, lvs.RoundRobin, 2)
	sctpSvc := sctpService(vip4, lvs.RoundRobin)
	mustAddService(t, p, sctpSvc)
	mustAddServer(t, p, sctpSvc, "198.51.100.1:80", 1)
	state := func() lvs.ConnectionState {
		t.Helper()
		conns := slices.Collect(p.Connections())
		if len(conns) != 1 {
			t.Fatalf("connections %v, want one", conns)
		}
		return conns[0].State
	}
	send(t, p, 0, "A", "pass-no-connection")
	wantVerdict(t, p, sctpFrame(client4, vip4, chunkData), "pass-no-connection", xdpPass)
	mustSet(t, p, sctpSvc.ServiceKey, map[string]int32{"sloppy_sctp": 1})
	send(t, p, 0, "A", "pass-no-connection")
	wantVerdict(t, p, sctpFrame(client4, vip4, chunkAbort), "pass-no-connection", xdpPass)
	wantVerdict(t, p, sctpFrame(client4, vip4, chunkData), "forward", xdpTX)
	if got := state(); got != lvs.StateSCTPEstablished {
		t.Errorf("state %s, want ESTABLISHED", got)
	}
	advance(p, time.Hour)
	mustSweep(t, p)

	mustSet(t, p, svc.ServiceKey, map[string]int32{"secure_tcp": 3, "conn_reuse_mode": 2})
	first := send(t, p, 0, "S", "forward")
	if got := state(); got != lvs.StateSynAck {
		t.Errorf("state %s, want SYNACK", got)
	}
	for _, flags := range []string{"A", "FA"} {
		send(t, p, 0, flags, "forward")
	}
	if again := send(t, p, 0, "S", "forward"); again == first {
		t.Error("SYN in FIN_WAIT with conn_reuse_mode 2 follows the connection")
	}
	checkTable(t, p)
}
