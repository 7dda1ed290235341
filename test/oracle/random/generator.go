package random

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/test/oracle/scenario"
)

// New returns the scenario of a seed: the same for the same features.
func New(seed uint64, features Features) *scenario.Scenario {
	g := &generator{
		random:   rand.New(rand.NewPCG(seed, 0)),
		features: features,
		timing:   newTiming(),
		scenario: &scenario.Scenario{Name: fmt.Sprint("seed ", seed)},
	}
	g.begin()
	for range 4 + g.random.IntN(7) {
		g.phase()
	}
	g.readAll()
	return g.scenario
}

type generator struct {
	random   *rand.Rand
	features Features
	timing   *timing
	scenario *scenario.Scenario
	services []*service
	clients  int // how many there are
	mark     uint32
}

// add adds a step, if its answer is certain.
func (g *generator) add(step scenario.Step) bool {
	if !g.timing.allows(&step) {
		return false
	}
	g.timing.pass(&step)
	g.scenario.Steps = append(g.scenario.Steps, step)
	return true
}

func (g *generator) command(line string) bool { return g.add(scenario.Command(line)) }

// chance reports true once in n.
func (g *generator) chance(n int) bool { return g.random.IntN(n) == 0 }

func pick[T any](g *generator, from ...T) T { return from[g.random.IntN(len(from))] }

// begin sets sysctls and builds the first services at one go.
func (g *generator) begin() {
	g.clients = pick(g, 3, 10, 40)
	for _, setting := range g.features.Sysctls {
		if g.chance(6) {
			g.add(scenario.New(scenario.Sysctl, setting))
		}
	}
	if g.chance(4) {
		g.command(g.timeouts())
	}
	step := scenario.New(scenario.Ipvsadm, "-R")
	for range 1 + g.random.IntN(3) {
		svc := g.newService()
		if svc == nil {
			continue
		}
		step.Input = append(step.Input, svc.command("-A"))
		for range g.random.IntN(5) {
			step.Input = append(step.Input, g.newServer(svc))
		}
	}
	g.add(step)
	if secure := slices.ContainsFunc(g.scenario.Steps, func(s scenario.Step) bool {
		return s.Verb == scenario.Sysctl && strings.HasPrefix(s.Words[0], "secure_tcp")
	}); secure {
		g.sleep(estimate) // it is read once a second
	}
}

func (g *generator) timeouts() string {
	timeout := func(some ...int) int { return pick(g, some...) }
	return fmt.Sprintf("--set %d %d %d", timeout(0, 20, 300, 1000), timeout(0, 8, 55, 200), timeout(0, 15, 40, 500))
}

// phase changes something, sends packets, lets time pass and reads.
func (g *generator) phase() {
	for range g.random.IntN(3) {
		g.edit()
	}
	g.burst()
	if g.chance(2) {
		g.edit()
		g.burst()
	}
	for range g.random.IntN(3) {
		g.read()
	}
	g.pass()
}

// naps are how long to let time pass, a little before and after timers of the
// kernel's run out among them.
var naps = []time.Duration{
	time.Second, 3 * time.Second, 9 * time.Second, 11 * time.Second, 31 * time.Second, 50 * time.Second, 59 * time.Second, 66 * time.Second,
	100 * time.Second, 119 * time.Second, 127 * time.Second, 200 * time.Second, 299 * time.Second, 310 * time.Second,
	899 * time.Second, 950 * time.Second,
}

// pass lets a time pass after which things are certain: if there is no other, one
// after which nothing is left.
func (g *generator) pass() {
	g.settle(0)
	for _, i := range g.random.Perm(len(naps)) {
		after := g.timing.clone()
		step := scenario.Wait(naps[i])
		after.pass(&step)
		half := scenario.Wait(half)
		later := after.clone()
		later.pass(&half)
		if !after.unsure() && !later.unsure() {
			g.add(step)
			return
		}
	}
	g.sleep((g.timing.allOver() + whole).Truncate(whole))
}

func (g *generator) sleep(t time.Duration) { g.add(scenario.Wait(t)) }

// burst sends packets to one service after the other.
func (g *generator) burst() {
	if len(g.services) == 0 {
		return
	}
	for range 1 + g.random.IntN(2) {
		svc := pick(g, g.services...)
		g.markFor(svc)
		protocol, vip := svc.target(g)
		g.add(scenario.New(scenario.To, protocol, vip))
		var packets []string
		for range 3 + g.random.IntN(30) {
			packets = append(packets, g.packet(svc, protocol, vip))
		}
		g.send(packets)
	}
}

// send sends packets, as many at a time as can be: after each that may end a
// connection, the kernel's clock has to move on.
func (g *generator) send(packets []string) {
	var step scenario.Step
	flush := func() {
		if len(step.Words) > 0 {
			g.add(step)
		}
		step = scenario.New(scenario.Send)
	}
	flush()
	after := g.timing.clone()
	for _, packet := range packets {
		ends := after.mayEnd(packet)
		if ends && after.now%whole+2*instant >= early {
			continue
		}
		step.Words = append(step.Words, packet)
		after.passPacket(packet)
		if ends {
			flush()
			g.sleep(instant)
			after = g.timing.clone()
		}
	}
	flush()
}

// settle lets the rest of a second pass, or of half of one.
func (g *generator) settle(part time.Duration) {
	at := g.timing.now % whole
	if rest := (part + whole - at) % whole; rest > 0 {
		g.sleep(rest)
	}
}

// markFor marks packets for a service of a mark, and mostly none for others.
func (g *generator) markFor(svc *service) {
	if !g.features.Marks || g.mark == svc.mark || svc.mark == 0 && g.chance(8) {
		return
	}
	if g.add(scenario.New(scenario.Mark, fmt.Sprint(svc.mark))) {
		g.mark = svc.mark
	}
}

// packet returns one of few clients, or one to them.
func (g *generator) packet(svc *service, protocol, vip string) string {
	client := 1 + g.random.IntN(g.clients)
	port := 1024 + g.random.IntN(3)
	text := fmt.Sprintf("203.0.113.%d:%d", client, port)
	if svc.ipv6 {
		text = fmt.Sprintf("[2001:db8:3:%x::%x]:%d", client%3, client, port)
	}
	masqueraded := slices.DeleteFunc(slices.Clone(svc.servers), func(s string) bool { return !g.isMasqueraded(svc, s) })
	switch {
	case len(masqueraded) > 0 && !g.tracksCalls(svc) && g.chance(3):
		server, isAnyPort := strings.CutSuffix(pick(g, masqueraded...), ":0")
		if isAnyPort {
			server += vip[strings.LastIndex(vip, ":"):]
		}
		text = "<" + server + ">" + text
	case g.features.ICMP && g.relaysErrors() && g.chance(12):
		return text + "/" + pick(g, "icmp-unreachable", "icmp-too-big", "icmp-exceeded")
	}
	switch protocol {
	case "udp":
		if svc.isSIP() && !g.chance(12) {
			return text + g.message()
		}
	case "tcp":
		flags := pick(g, "", "", "", "", "A", "A", "A", "PA", "FA", "FA", "R", "RA", "F", "SA", "U", "0", "SF", "SR", "SFA")
		if flags != "" {
			text += "/" + flags
		}
	case "sctp":
		chunk := pick(g, "", "", "", "COOKIE_ECHO", "COOKIE_ECHO", "DATA", "SACK", "SHUTDOWN", "SHUTDOWN_ACK", "SHUTDOWN_COMPLETE", "ABORT", "ERROR", "INIT_ACK", "COOKIE_ACK")
		if chunk != "" {
			text += "/" + chunk
		}
	}
	if protocol != "sctp" && g.chance(5) {
		text += fmt.Sprint("+", g.random.IntN(1000))
	}
	return text
}

// relaysErrors reports whether ICMP errors about connections go where IPVS sends
// them. That to a real server that was removed is no place for them.
func (g *generator) relaysErrors() bool { return len(g.timing.removed) == 0 }

// read reads in one way. It comes back to a whole second.
func (g *generator) read() {
	svc := ""
	if len(g.services) > 0 {
		svc = " " + pick(g, g.services...).name
	}
	g.settle(half)
	switch g.random.IntN(9) {
	case 0, 1:
		g.add(scenario.New(scenario.Servers))
	case 2, 3:
		g.add(scenario.New(scenario.Connections))
	case 4:
		g.command("-Ln")
	case 5:
		g.command("-Lnc" + pick(g, "", " --persistent-conn"))
	case 6:
		g.command("-Ln --thresholds" + pick(g, "", svc))
	case 7:
		g.command("-Ln --persistent-conn" + pick(g, "", svc))
	case 8:
		g.sleep(estimate)
		g.command("-Ln --stats" + pick(g, "", svc))
	}
	g.settle(0)
}

// readAll reads in the ways that tell most.
func (g *generator) readAll() {
	g.settle(half)
	if g.timing.unsure() {
		g.settle(0)
		g.pass()
		g.settle(half)
	}
	for _, line := range []string{"-Ln", "-Sn", "-Ln --timeout"} {
		g.command(line)
	}
	g.add(scenario.New(scenario.Servers))
	g.add(scenario.New(scenario.Connections))
	g.sleep(estimate)
	g.command("-Ln --stats --exact")
}

// schedulerOptions returns -s, and -b for one that has flags.
func (g *generator) schedulerOptions() string {
	scheduler := pick(g, g.features.Schedulers...)
	options := "-s " + string(scheduler)
	if g.features.SchedulerFlags && (scheduler == lvs.SourceHashing || scheduler == lvs.MaglevHashing) {
		name := string(scheduler)
		options += pick(g, "", " -b "+name+"-fallback", " -b "+name+"-port", " -b "+name+"-fallback,"+name+"-port")
	}
	return options
}
