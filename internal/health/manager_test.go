package health

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

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

// A busyNetwork answers nothing, and is told that a time is over long after it is.
type busyNetwork struct{ late time.Duration }

func (n busyNetwork) Dial(ctx context.Context, _ string, _ Target) (net.Conn, error) {
	<-ctx.Done()
	<-time.After(n.late)
	return nil, ctx.Err()
}

// That a host which had no time for its checks has seen no answers is no verdict.
func TestBusyHostBlamesNoServer(t *testing.T) {
	for _, c := range []struct {
		late  time.Duration
		state lvs.HealthState
		cause Cause
	}{
		{100 * time.Millisecond, lvs.HealthDown, HostDown},
		{2 * time.Second, lvs.HealthUnknown, CheckFailed},
	} {
		t.Run(c.late.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := NewManager(busyNetwork{c.late}, slog.New(slog.DiscardHandler), func(lvs.ServiceKey) {})
				defer pass(time.Minute) // who is asked aside goes on
				defer m.Close()
				check, server := tcpCheck(lvs.PathVIP), member("192.0.2.11:80", 1)
				check.Interval, check.Timeout = 5*time.Second, 2*time.Second
				if err := m.Set([]Service{serviceOf(web, check, server)}); err != nil {
					t.Fatal(err)
				}
				pass(time.Minute)
				if got := m.Server(web, server.RealServerKey); got.State != c.state || got.Cause != string(c.cause) {
					t.Errorf("%+v", got)
				}
			})
		})
	}
}

// Nobody waits for the answers of servers when checks end.
func TestCloseWaitsForNoAnswer(t *testing.T) {
	for _, kind := range []lvs.CheckType{
		lvs.CheckTCP, lvs.CheckHTTP, lvs.CheckHTTPS, lvs.CheckHTTP2, lvs.CheckGRPC, lvs.CheckDNS, lvs.CheckSMTP, lvs.CheckUDP, lvs.CheckICMP,
	} {
		t.Run(string(kind), func(t *testing.T) {
			b, server := newBench(t), member("192.0.2.11:80", 1)
			check := tcpCheck(lvs.PathRIP)
			check.Type, check.Interval, check.Timeout = kind, time.Hour, time.Hour
			if kind == lvs.CheckTCP {
				check.TLS = &lvs.TLSCheck{}
			}
			target := "rip 192.0.2.11:80"
			b.network.set(target, nil)
			b.must(t, b.Set([]Service{serviceOf(web, check, server)}))
			b.until(t, "asked", func() bool { return b.network.dialed(target) > 0 })
			closed := make(chan struct{})
			go func() {
				b.Close()
				close(closed)
			}()
			select {
			case <-closed:
			case <-time.After(waitLimit):
				t.Error("it waits")
			}
		})
	}
}
