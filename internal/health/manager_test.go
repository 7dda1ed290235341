package health

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

var (
	web  = lvs.ServiceKey{Protocol: lvs.TCP, Address: netip.MustParseAddr("192.0.2.100"), Port: 80}
	web6 = lvs.ServiceKey{Protocol: lvs.TCP, Address: netip.MustParseAddr("2001:db8::100"), Port: 80}
)

func member(address string, weight uint32) lvs.RealServer {
	at := netip.MustParseAddrPort(address)
	return lvs.RealServer{
		RealServerKey: lvs.RealServerKey{Address: at.Addr(), Port: at.Port()}, Method: lvs.DirectRouting, Weight: weight,
	}
}

// waitLimit is for what must come.
const waitLimit = 10 * time.Second

// A fakeNetwork answers by target: nil is a connection, nobody known
// is silence. It wakes who waits at each question.
type fakeNetwork struct {
	wake    func()
	mu      sync.Mutex
	answers map[string]error
	dials   map[string]int
}

func newFakeNetwork(wake func()) *fakeNetwork {
	return &fakeNetwork{wake: wake, answers: map[string]error{}, dials: map[string]int{}}
}

// nameOfTarget returns "vip 192.0.2.100:80 by 192.0.2.11" or "rip 192.0.2.11:80".
func nameOfTarget(t Target) string {
	if t.Path == lvs.PathVIP {
		return "vip " + t.Address.String() + " by " + t.Server.Address.String()
	}
	return "rip " + t.Address.String()
}

func (n *fakeNetwork) set(name string, answer error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answers[name] = answer
}

func (n *fakeNetwork) silence(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.answers, name)
}

func (n *fakeNetwork) dialed(name string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials[name]
}

func (n *fakeNetwork) Dial(ctx context.Context, _ string, target Target) (net.Conn, error) {
	name := nameOfTarget(target)
	n.mu.Lock()
	n.dials[name]++
	answer, known := n.answers[name]
	n.mu.Unlock()
	n.wake()
	if !known {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if answer != nil {
		return nil, answer
	}
	near, _ := net.Pipe()
	return near, nil
}

// A bench is a manager whose questions and changes wake who waits for what comes of
// them.
type bench struct {
	*Manager
	network *fakeNetwork
	woken   chan struct{}
}

func newBench(t *testing.T) *bench {
	b := &bench{woken: make(chan struct{}, 1)}
	b.network = newFakeNetwork(b.wake)
	b.Manager = NewManager(b.network, slog.New(slog.DiscardHandler), func(lvs.ServiceKey) { b.wake() })
	t.Cleanup(b.Close)
	return b
}

func (b *bench) wake() {
	select {
	case b.woken <- struct{}{}:
	default:
	}
}

func (b *bench) must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// until waits for a condition: it looks at each change and at each question, for
// what the one before has come to.
func (b *bench) until(t *testing.T, what string, is func() bool) {
	t.Helper()
	limit := time.After(waitLimit)
	for !is() {
		select {
		case <-b.woken:
		case <-limit:
			t.Fatalf("%s: not in time", what)
		}
	}
}

// pass lets time go by in a bubble of synctest, where it takes none, and returns when
// all that was due is done.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (b *bench) becomes(t *testing.T, key lvs.ServiceKey, server lvs.RealServer, state lvs.HealthState, cause Cause) {
	t.Helper()
	var got lvs.HealthStatus
	defer func() {
		if t.Failed() {
			t.Logf("last: %+v", got)
		}
	}()
	b.until(t, string(state)+" "+string(cause), func() bool {
		got = b.Server(key, server.RealServerKey)
		return got.State == state && got.Cause == string(cause)
	})
}

func tcpCheck(path lvs.CheckPath) lvs.Check {
	return lvs.Check{
		Type: lvs.CheckTCP, Path: path, Interval: 20 * time.Millisecond, Timeout: 20 * time.Millisecond, Rise: 2, Fall: 2,
	}
}

func serviceOf(key lvs.ServiceKey, check lvs.Check, members ...lvs.RealServer) Service {
	s := Service{ServiceHealth: lvs.ServiceHealth{ServiceKey: key}, Members: members}
	for _, m := range members {
		s.Servers = append(s.Servers, lvs.ServerHealth{RealServerKey: m.RealServerKey, Checks: []lvs.Check{check}})
	}
	return s
}

// The same silence for the VIP has its cause at the server's own address.
func TestCauses(t *testing.T) {
	server := member("192.0.2.11:80", 1)
	const vip, rip = "vip 192.0.2.100:80 by 192.0.2.11", "rip 192.0.2.11:80"
	for _, test := range []struct {
		name     string
		vip, rip error
		cause    Cause
	}{
		{"silent at both", errSilent, errSilent, HostDown},
		{"the VIP is silent", errSilent, nil, PathBroken},
		{"the VIP is silent, the process is not there", errSilent, unix.ECONNREFUSED, PathBroken},
		{"refused", unix.ECONNREFUSED, nil, ProcessDown},
		{"no way", &UnreachableError{NoNextHop, "192.0.2.11 does not answer ARP"}, nil, NoNextHop},
		{"a router says so", unix.EHOSTUNREACH, errSilent, HostDown},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			b.network.set(vip, nil)
			b.network.set(rip, nil)
			b.must(t, b.Set([]Service{serviceOf(web, tcpCheck(lvs.PathVIP), server)}))
			b.becomes(t, web, server, lvs.HealthUp, "")
			for name, answer := range map[string]error{vip: test.vip, rip: test.rip} {
				if answer == errSilent {
					b.network.silence(name)
				} else {
					b.network.set(name, answer)
				}
			}
			b.becomes(t, web, server, lvs.HealthDown, test.cause)
			if inForce := b.InForce(web, []lvs.RealServer{server}); len(inForce) != 0 {
				t.Errorf("in force: %v", inForce)
			}
			b.network.set(vip, nil)
			b.network.set(rip, nil)
			b.becomes(t, web, server, lvs.HealthUp, "")
		})
	}
}

var errSilent = errors.New("silent")

// What the checker's own host lacks is no verdict on a server.
func TestOwnFaultIsNoVerdict(t *testing.T) {
	b, server := newBench(t), member("192.0.2.11:80", 1)
	b.network.set("vip 192.0.2.100:80 by 192.0.2.11", &UnreachableError{PathUnavailable, "no namespace"})
	b.must(t, b.Set([]Service{serviceOf(web, tcpCheck(lvs.PathVIP), server)}))
	b.becomes(t, web, server, lvs.HealthUnknown, PathUnavailable)
	b.until(t, "asked again and again", func() bool { return b.network.dialed("vip 192.0.2.100:80 by 192.0.2.11") > 5 })
	b.becomes(t, web, server, lvs.HealthUnknown, PathUnavailable)
	if inForce := b.InForce(web, []lvs.RealServer{server}); len(inForce) != 1 {
		t.Errorf("in force: %v", inForce)
	}
}

// Nothing is taken out before a verdict; a server with Alpha is not there before one.
func TestBeforeTheFirstVerdict(t *testing.T) {
	b := newBench(t)
	first, second := member("192.0.2.11:80", 1), member("192.0.2.12:80", 1)
	slow := tcpCheck(lvs.PathRIP)
	slow.Interval, slow.Timeout = time.Hour, time.Hour
	want := serviceOf(web, slow, first, second)
	want.Servers[1].Alpha = true
	b.must(t, b.Set([]Service{want}))
	if got := b.InForce(web, []lvs.RealServer{first, second}); !slices.Equal(got, []lvs.RealServer{first}) {
		t.Errorf("in force: %v", got)
	}
}

// One question serves every service that asks the same.
func TestQuestionsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, server := newBench(t), member("192.0.2.11:80", 1)
		other := web
		other.Address = netip.MustParseAddr("192.0.2.101")
		var want []Service
		for _, key := range []lvs.ServiceKey{web, other} {
			want = append(want, serviceOf(key, tcpCheck(lvs.PathRIP), server))
		}
		b.network.set("rip 192.0.2.11:80", unix.ECONNREFUSED)
		b.must(t, b.Set(want))
		b.becomes(t, web, server, lvs.HealthDown, ProcessDown)
		b.becomes(t, other, server, lvs.HealthDown, ProcessDown)
		b.mu.Lock()
		if len(b.questions) != 1 {
			t.Errorf("%d questions", len(b.questions))
		}
		b.mu.Unlock()
		// A question that is still put keeps its verdict, and one that is not ends.
		b.must(t, b.Set(want[:1]))
		if got := b.Server(web, server.RealServerKey); got.State != lvs.HealthDown {
			t.Errorf("after Set: %+v", got)
		}
		if got := b.Server(other, server.RealServerKey); got != (lvs.HealthStatus{}) {
			t.Errorf("not looked after: %+v", got)
		}
		b.must(t, b.Set(nil))
		count := b.network.dialed("rip 192.0.2.11:80")
		pass(time.Hour)
		if again := b.network.dialed("rip 192.0.2.11:80"); again != count {
			t.Errorf("put %d times after its end", again-count)
		}
	})
}

func TestTargets(t *testing.T) {
	server, server6 := member("192.0.2.11:8080", 3), member("[2001:db8::11]:80", 1)
	masqueraded := server
	masqueraded.Method = lvs.Masquerading
	other := netip.MustParseAddr("192.0.2.77")
	check := func(change func(*lvs.Check)) lvs.Check {
		c := tcpCheck(lvs.PathVIP)
		change(&c)
		return c
	}
	for _, test := range []struct {
		key    lvs.ServiceKey
		server lvs.RealServer
		check  lvs.Check
		want   string // "": refused
	}{
		{web, server, check(func(*lvs.Check) {}), "vip 192.0.2.100:80 by 192.0.2.11"},
		{web6, server6, check(func(*lvs.Check) {}), "vip [2001:db8::100]:80 by 2001:db8::11"},
		{web, server, check(func(c *lvs.Check) { c.Port = 81 }), "vip 192.0.2.100:81 by 192.0.2.11"},
		{web, masqueraded, check(func(*lvs.Check) {}), "rip 192.0.2.11:8080"},
		{web, server, check(func(c *lvs.Check) { c.Path = lvs.PathRIP }), "rip 192.0.2.11:8080"},
		{web, server, check(func(c *lvs.Check) { c.Path, c.Port = lvs.PathRIP, 81 }), "rip 192.0.2.11:81"},
		{web, server, check(func(c *lvs.Check) { c.Path, c.Address = lvs.PathRIP, other }), "rip 192.0.2.77:8080"},
		{lvs.MarkKey(7, false), server, check(func(*lvs.Check) {}), ""},
		{lvs.MarkKey(7, false), server, check(func(c *lvs.Check) { c.Path = lvs.PathRIP }), "rip 192.0.2.11:8080"},
		{lvs.MarkKey(7, false), member("192.0.2.11:0", 1), check(func(c *lvs.Check) { c.Path = lvs.PathRIP }), ""},
	} {
		target, err := targetOf(test.key, test.server, test.check)
		if test.want == "" {
			if !errors.Is(err, lvs.ErrInvalid) {
				t.Errorf("%s: %v, %v", test.key, target, err)
			}
			continue
		}
		if err != nil || nameOfTarget(target) != test.want {
			t.Errorf("%s: %s, %v; want %s", test.key, nameOfTarget(target), err, test.want)
		}
	}
}

func TestRiseFallAndFlapping(t *testing.T) {
	check := tcpCheck(lvs.PathRIP)
	check.Rise, check.Fall = 2, 3
	for _, test := range []struct {
		name, answers string // + and -
		want          string // u, d and ? after each; f: down by flapping
	}{
		{"from nothing", "+", "u"},
		{"down needs three", "---+-", "??ddd"},
		{"never up", "--+", "??u"},
		{"fall", "+--+---", "uuuuuud"},
		{"rise", "---++", "??ddu"},
		{"a failure now and then", "+++-++++-++++", "uuuuuuuuuuuuu"},
		{"flapping", "+-+-+-++", "uuuuufff"},
		{"no flapping any more", "+-+-+-++++++++++", "uuuuufffffffffuu"},
	} {
		q := &question{prober: &prober{check: check}, state: lvs.HealthUnknown}
		got := ""
		for _, answer := range test.answers {
			r := success("")
			if answer == '-' {
				r = failure(Timeout, "")
			}
			q.take(r)
			switch {
			case q.cause == Flapping:
				got += "f"
			default:
				got += map[lvs.HealthState]string{lvs.HealthUp: "u", lvs.HealthDown: "d", lvs.HealthUnknown: "?"}[q.state]
			}
		}
		if got != test.want {
			t.Errorf("%s: %s gives %s, want %s", test.name, test.answers, got, test.want)
		}
	}
}

func TestQuorum(t *testing.T) {
	servers := []lvs.RealServer{member("192.0.2.11:80", 2), member("192.0.2.12:80", 2), member("192.0.2.13:80", 2)}
	sorry := member("192.0.2.99:80", 1)
	s := &service{servers: map[lvs.RealServerKey]*server{}}
	s.Quorum, s.Hysteresis, s.Sorry = 4, 1, sorry
	for _, m := range servers {
		s.servers[m.RealServerKey] = &server{service: s, state: lvs.HealthUp, ServerHealth: lvs.ServerHealth{RealServerKey: m.RealServerKey}}
	}
	now := time.Now()
	step := func(name string, up int, changed, lost bool, want ...lvs.RealServer) {
		t.Helper()
		for i, m := range servers {
			s.servers[m.RealServerKey].state = lvs.HealthDown
			if i < up {
				s.servers[m.RealServerKey].state = lvs.HealthUp
			}
		}
		if got := s.count(servers, now); got != changed || s.quorum.Lost != lost {
			t.Errorf("%s: changed %v, %+v", name, got, s.quorum)
		}
		if got := s.inForce(servers); !slices.Equal(got, want) {
			t.Errorf("%s: in force %v", name, got)
		}
	}
	step("all", 3, false, false, servers...)
	step("just enough", 2, false, false, servers[:2]...)
	step("lost", 1, true, true, sorry)
	step("enough, but not to regain it", 2, false, true, sorry)
	step("regained", 3, true, false, servers...)
	quiesced := func(r lvs.RealServer) lvs.RealServer { r.Weight = 0; return r }
	s.SorryInhibit = true
	for _, one := range s.servers {
		one.Inhibit = true
	}
	step("all, with a sorry server that waits", 3, false, false, servers[0], servers[1], servers[2], quiesced(sorry))
	step("none", 0, true, true, quiesced(servers[0]), quiesced(servers[1]), quiesced(servers[2]), sorry)
}

// A suspicion brings the next question forward, once an interval.
func TestSuspect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, server := newBench(t), member("192.0.2.11:80", 1)
		check := tcpCheck(lvs.PathRIP)
		check.Interval, check.Timeout = time.Hour, time.Second
		b.network.set("rip 192.0.2.11:80", nil)
		b.must(t, b.Set([]Service{serviceOf(web, check, server)}))
		b.becomes(t, web, server, lvs.HealthUp, "")
		asked := func(want int) {
			t.Helper()
			if got := b.network.dialed("rip 192.0.2.11:80"); got != want {
				t.Errorf("asked %d times, want %d", got, want)
			}
		}
		pass(time.Minute)
		b.Suspect(web, server.RealServerKey, "no answers")
		pass(soon)
		asked(2)
		for range 10 {
			b.Suspect(web, server.RealServerKey, "no answers")
			pass(time.Minute)
		}
		asked(2)
		pass(time.Hour)
		asked(3)
		b.Suspect(web, server.RealServerKey, "no answers")
		pass(soon)
		asked(4)
		b.Suspect(web6, server.RealServerKey, "no answers") // nobody knows it
	})
}

// What the check confirms that clients have seen does not wait for the next interval.
func TestSuspicionIsConfirmedSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, server := newBench(t), member("192.0.2.11:80", 1)
		check := tcpCheck(lvs.PathRIP)
		check.Interval, check.Timeout, check.Fall = time.Hour, time.Second, 2
		b.network.set("rip 192.0.2.11:80", nil)
		b.must(t, b.Set([]Service{serviceOf(web, check, server)}))
		b.becomes(t, web, server, lvs.HealthUp, "")
		b.network.set("rip 192.0.2.11:80", unix.ECONNREFUSED)
		pass(time.Minute)
		b.Suspect(web, server.RealServerKey, "no answers")
		if status := b.Server(web, server.RealServerKey); status.Suspicion != "no answers" {
			t.Errorf("not suspected: %+v", status)
		}
		pass(time.Minute)
		b.becomes(t, web, server, lvs.HealthDown, ProcessDown)
		// Another configuration changes nothing of what was seen.
		b.must(t, b.Set([]Service{serviceOf(web, check, server)}))
		if status := b.Server(web, server.RealServerKey); status.Suspicion != "no answers" || status.Suspected.IsZero() {
			t.Errorf("forgotten: %+v", status)
		}
	})
}

// Those who are told get each transition once, in order, and hold nobody up.
func TestNotifications(t *testing.T) {
	events := make(chan Event, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var e Event
		if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
			t.Error(err)
		}
		events <- e
	}))
	defer hook.Close()
	pipe := filepath.Join(t.TempDir(), "told")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	told, err := os.OpenFile(pipe, os.O_RDWR, 0) // so that it opens without a writer
	if err != nil {
		t.Fatal(err)
	}
	defer told.Close()
	b, server := newBench(t), member("192.0.2.11:80", 1)
	want := serviceOf(web, tcpCheck(lvs.PathRIP), server)
	want.Servers[0].Notify = []lvs.Notification{
		{Script: script(t, "exec sleep 60")},
		{Webhook: hook.URL},
		{On: []lvs.Transition{lvs.ServerDown}, Script: script(t, `echo "$1 $FAIRLEAD_TRANSITION $FAIRLEAD_SERVER $FAIRLEAD_CAUSE $(cat)" > `+pipe)},
	}
	want.Notify, want.Quorum = []lvs.Notification{{Webhook: hook.URL}}, 1
	b.network.set("rip 192.0.2.11:80", nil)
	b.must(t, b.Set([]Service{want}))
	b.becomes(t, web, server, lvs.HealthUp, "")
	b.network.set("rip 192.0.2.11:80", unix.ECONNREFUSED)
	b.becomes(t, web, server, lvs.HealthDown, ProcessDown)
	b.InForce(web, want.Members)
	b.network.set("rip 192.0.2.11:80", nil)
	b.becomes(t, web, server, lvs.HealthUp, "")
	b.InForce(web, want.Members)
	for _, want := range []lvs.Transition{lvs.ServerDown, lvs.QuorumDown, lvs.ServerUp, lvs.QuorumUp} {
		select {
		case e := <-events:
			if e.Transition != want || e.Service != "TCP 192.0.2.100:80" || (want == lvs.ServerDown && e.Cause != "process-down") {
				t.Errorf("got %+v, want %s", e, want)
			}
		case <-time.After(waitLimit):
			t.Fatalf("%s: not told", want)
		}
	}
	if err := told.SetReadDeadline(time.Now().Add(waitLimit)); err != nil {
		t.Fatal(err)
	}
	text, err := bufio.NewReader(told).ReadString('\n')
	if err != nil || !strings.HasPrefix(text, `one two down 192.0.2.11:80 process-down {"time":`) || !strings.HasSuffix(text, "}\n") {
		t.Errorf("the script: %v, %q", err, text)
	}
}

// Checks of many servers take little: half a core for 10,000 every five seconds, so
// 250 microseconds each.
func TestCost(t *testing.T) {
	const servers, rounds = 500, 8
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	first, last := make(chan struct{}), make(chan struct{})
	go func() {
		for n := 1; ; n++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
			switch n {
			case servers:
				close(first)
			case (1 + rounds) * servers:
				close(last)
			}
		}
	}()
	port := netip.MustParseAddrPort(l.Addr().String()).Port()
	changes := make(chan struct{}, servers)
	m := NewManager(Host{}, slog.New(slog.DiscardHandler), func(lvs.ServiceKey) {
		select {
		case changes <- struct{}{}:
		default: // more than what is waited for
		}
	})
	defer m.Close()
	check := lvs.Check{Type: lvs.CheckTCP, Path: lvs.PathRIP, Interval: 250 * time.Millisecond, Timeout: 200 * time.Millisecond, Rise: 1, Fall: 5, Jitter: 50 * time.Millisecond}
	var members []lvs.RealServer
	for i := range servers {
		r := member("127.0.0.1:1", 1)
		r.Address = netip.AddrFrom4([4]byte{127, 0, 1 + byte(i/250), 1 + byte(i%250)})
		r.Port = port
		members = append(members, r)
	}
	if err := m.Set([]Service{serviceOf(web, check, members...)}); err != nil {
		t.Fatal(err)
	}
	limit := time.After(waitLimit)
	wait := func(what string, c <-chan struct{}) {
		t.Helper()
		select {
		case <-c:
		case <-limit:
			t.Fatalf("%s: not in time", what)
		}
	}
	for range servers {
		wait("all servers are up", changes)
	}
	wait("the first checks", first)
	before := processorTime(t)
	wait("the last checks", last)
	each := (processorTime(t) - before) / (rounds * servers)
	t.Logf("a check takes %s, the server included", each)
	if each > 500*time.Microsecond { // on a busy machine, looked at for races
		t.Errorf("a check takes %s", each)
	}
}

// processorTime returns what this process has taken.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
