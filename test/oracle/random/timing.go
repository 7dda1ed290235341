package random

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-lb/fairlead/test/oracle/scenario"
)

// A timing follows a scenario's clock, and says when the kernel's answer to a step
// would hang on what can't be told: a timer of the kernel's wheel that is due runs
// out up to 1/8 late, seconds are rounded, counters are brought up to date every
// two seconds.
type timing struct {
	now      time.Duration
	sent     []time.Duration          // when packets were
	timeouts map[time.Duration]bool   // that a connection may have
	persists map[time.Duration]bool   // that a template may have
	removed  map[string]time.Duration // real servers of a service, and when they left
	servers  map[string]bool          // those that are there
	target   string                   // where packets go: protocol and VIP
	flows    map[string]bool          // that had a packet
	ended    time.Duration            // when the last packet came that may have ended a connection; -1: none did
	nodest   bool                     // expire_nodest_conn
}

// fixedTimeouts are those that no command changes, of all protocols.
var fixedTimeouts = []time.Duration{
	2 * time.Second, 4 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 61 * time.Second, 2 * time.Minute,
	3 * time.Minute, 5 * time.Minute, 15 * time.Minute,
}

func newTiming() *timing {
	t := &timing{
		timeouts: map[time.Duration]bool{}, persists: map[time.Duration]bool{},
		removed: map[string]time.Duration{}, servers: map[string]bool{}, flows: map[string]bool{}, ended: -1,
	}
	for _, timeout := range fixedTimeouts {
		t.timeouts[timeout] = true
	}
	return t
}

func (t *timing) clone() *timing {
	return &timing{
		now: t.now, sent: slices.Clone(t.sent), timeouts: maps.Clone(t.timeouts), persists: maps.Clone(t.persists),
		removed: maps.Clone(t.removed), servers: maps.Clone(t.servers), target: t.target,
		flows: maps.Clone(t.flows), ended: t.ended, nodest: t.nodest,
	}
}

// isCertain reports whether the kernel's answers to all steps of a scenario hang on
// nothing that can't be told.
func isCertain(s *scenario.Scenario) bool {
	t := newTiming()
	for i := range s.Steps {
		if !t.allows(&s.Steps[i]) {
			return false
		}
		t.pass(&s.Steps[i])
	}
	return true
}

// Packets are sent at whole seconds and a little later, and what they did is read
// half a second after one.
const (
	whole = time.Second
	half  = time.Second / 2
	early = 300 * time.Millisecond
)

// instant is more than the kernel's tick. A connection that a packet ends, such as
// the old one of a SYN that begins a new one, is gone with the next tick only.
const instant = 20 * time.Millisecond

// estimate is more than the time after which the kernel's counters are up to date.
const estimate = 3 * time.Second

// trash is less than the time for which the kernel remembers a real server that was
// removed; nobody can tell when exactly it forgets.
const trash = 100 * time.Second

// allows reports whether the answer to a step is certain.
func (t *timing) allows(step *scenario.Step) bool {
	switch step.Verb {
	case scenario.Sleep, scenario.To, scenario.Mark, scenario.Sysctl:
		return true
	case scenario.Send:
		return t.now%whole < early && !t.unsure() && t.reaches(step) && t.endsLast(step)
	case scenario.Ipvsadm:
		return !t.unsure() && t.allowsCommand(step)
	}
	return t.now%whole == half && !t.unsure()
}

// reaches reports whether the packets of a step can go where they are to go: it is
// not so in scenarios that lack a step.
func (t *timing) reaches(step *scenario.Step) bool {
	protocol, vip, _ := strings.Cut(t.target, " ")
	for _, packet := range step.Words {
		_, what, _ := strings.Cut(packet, "/")
		what, _, _ = strings.Cut(what, "+")
		isTCP, isAny := strings.Trim(what, "SAFRPU0") == "", strings.HasPrefix(what, "icmp-")
		if strings.HasPrefix(what, "sip=") || strings.HasPrefix(what, "text=") {
			isAny = protocol == "udp"
		}
		isIPv6 := strings.HasPrefix(strings.TrimPrefix(packet, "<"), "[")
		if what != "" && !isAny && (protocol == "udp" || isTCP != (protocol == "tcp")) || isIPv6 != strings.HasPrefix(vip, "[") {
			return false
		}
	}
	return protocol != ""
}

// mayEnd reports whether a packet may end a connection at once: the first of a new
// one on the ports of an old one; or any, if those do whose real server is gone.
func (t *timing) mayEnd(packet string) bool {
	flow, what, _ := strings.Cut(packet, "/")
	flow, _, _ = strings.Cut(flow, "+")
	what, _, _ = strings.Cut(what, "+")
	if !t.flows[t.target+" "+flow] {
		return false
	}
	protocol, _, _ := strings.Cut(t.target, " ")
	begins := what == "" || protocol == "tcp" && strings.Contains(what, "S") || what == "INIT"
	return t.nodest || begins && protocol != "udp"
}

// endsLast reports whether none but the last packet of a step may end a connection.
func (t *timing) endsLast(step *scenario.Step) bool {
	after := t.clone()
	for i, packet := range step.Words {
		if i < len(step.Words)-1 && after.mayEnd(packet) {
			return false
		}
		after.passPacket(packet)
	}
	return true
}

func (t *timing) passPacket(packet string) {
	if t.mayEnd(packet) {
		t.ended = t.now
	}
	flow, _, _ := strings.Cut(packet, "/")
	flow, _, _ = strings.Cut(flow, "+")
	t.flows[t.target+" "+flow] = true
}

func (t *timing) allowsCommand(step *scenario.Step) bool {
	if len(step.Words) == 0 {
		return false
	}
	settled := len(t.sent) == 0 || t.now-t.sent[len(t.sent)-1] >= estimate
	for _, words := range commands(step) {
		switch {
		case strings.HasPrefix(words[0], "-L"):
			if t.now%whole != half || slices.Contains(words, "--stats") && !settled {
				return false
			}
		case words[0] == "-Z":
			if !settled {
				return false
			}
		case words[0] == "-a":
			if left, ok := t.removed[serverOf(words)]; ok && t.now-left > trash {
				return false
			}
		}
	}
	return true
}

// commands returns the command lines of a step.
func commands(step *scenario.Step) (lines [][]string) {
	if step.Words[0] != "-R" {
		return [][]string{step.Words}
	}
	for _, line := range step.Input {
		lines = append(lines, strings.Fields(line))
	}
	return lines
}

// pass notes what a step does.
func (t *timing) pass(step *scenario.Step) {
	switch step.Verb {
	case scenario.To:
		t.target = strings.Join(step.Words, " ")
	case scenario.Sleep:
		slept, _ := step.Slept() // a step that the generator made
		t.now += slept
		t.forget()
	case scenario.Send:
		if n := len(t.sent); n == 0 || t.sent[n-1] != t.now {
			t.sent = append(t.sent, t.now)
		}
		for _, packet := range step.Words {
			t.passPacket(packet)
		}
	case scenario.Sysctl:
		t.nodest = t.nodest || step.Words[0] == "expire_nodest_conn=1"
	case scenario.Ipvsadm:
		for _, words := range commands(step) {
			t.passCommand(words)
		}
	}
}

func (t *timing) passCommand(words []string) {
	switch words[0] {
	case "--set":
		for _, word := range words[1:] {
			if seconds, err := strconv.Atoi(word); err == nil && seconds > 0 {
				t.timeouts[time.Duration(seconds)*time.Second] = true
			}
		}
	case "-A", "-E":
		if seconds, err := strconv.Atoi(valueOf(words, "-p")); err == nil {
			t.persists[time.Duration(seconds)*time.Second] = true
		}
	case "-a":
		t.servers[serverOf(words)] = true
		delete(t.removed, serverOf(words))
	case "-d":
		t.remove(func(server string) bool { return server == serverOf(words) })
	case "-D":
		t.remove(func(server string) bool { return strings.HasPrefix(server, serviceOf(words)+" ") })
	case "-C":
		t.remove(func(string) bool { return true })
	}
}

func (t *timing) remove(matches func(server string) bool) {
	for server := range t.servers {
		if matches(server) {
			delete(t.servers, server)
			t.removed[server] = t.now
		}
	}
}

func valueOf(words []string, option string) string {
	if i := slices.Index(words, option); i >= 0 && i+1 < len(words) {
		return words[i+1]
	}
	return ""
}

// serviceOf returns the words that name the service of a command line.
func serviceOf(words []string) string {
	for _, option := range []string{"-t", "-u", "--sctp-service", "-f"} {
		if value := valueOf(words, option); value != "" {
			if slices.Contains(words, "-6") {
				value += " -6"
			}
			return option + " " + value
		}
	}
	return ""
}

func serverOf(words []string) string { return serviceOf(words) + " " + valueOf(words, "-r") }

// margin is kept from the time at which a timer may run out.
const margin = 600 * time.Millisecond

// late is how long after its time a timer may run out: the wheel has ticks of
// 10 ms, and eight times as long ones for each level further out.
func late(timeout time.Duration) time.Duration {
	grain := 10 * time.Millisecond
	for timeout/grain >= 64 {
		grain *= 8
	}
	return grain
}

// rearmed is what a template that is still used gets when its time is over, and
// rearms how often its time can be told.
const (
	rearmed = time.Minute
	rearms  = 2
)

// A templateEnd is when the time of a template may be over, and how late its timer may run out.
type templateEnd struct{ at, slack time.Duration }

// unsure reports whether a timer may or may not have run out by now.
func (t *timing) unsure() bool {
	if t.ended >= 0 && t.now-t.ended < instant {
		return true
	}
	for _, sent := range t.sent {
		age := t.now - sent
		for timeout := range t.timeouts {
			if age > timeout-margin && age < timeout+late(timeout)+margin {
				return true
			}
		}
		for _, lifetime := range t.lifetimes(sent) {
			if age > lifetime+(rearms+1)*rearmed-margin && age < t.allOver() {
				return true
			}
			slack := late(lifetime)
			for n := range time.Duration(rearms + 1) {
				if t.isUnsureAt(templateEnd{sent + lifetime + n*rearmed, slack}) {
					return true
				}
				slack += late(rearmed)
			}
		}
	}
	return false
}

// lifetimes returns how long a template may live that a packet used: as long as its service
// says or, if it may have been kept beyond that before, for what it got then.
func (t *timing) lifetimes(sent time.Duration) (all []time.Duration) {
	for timeout := range t.persists {
		all = append(all, timeout)
		if slices.ContainsFunc(t.sent, func(earlier time.Duration) bool { return sent-earlier > timeout-margin }) {
			all = append(all, rearmed)
		}
	}
	return all
}

// isUnsureAt reports whether a template is or is not there now: its timer is due, or ran out
// together with that of a connection, which may have been its last. The kernel's wheel takes the timers of one tick
// in an order of its own, and so may have kept the template for that connection's sake.
func (t *timing) isUnsureAt(end templateEnd) bool {
	over := t.now - end.at
	return over > -margin && over < end.slack+margin ||
		over > 0 && over < rearmed+late(rearmed)+end.slack+margin && t.meetsConnection(end)
}

// meetsConnection reports whether the timer of a connection may run out together with a template's.
func (t *timing) meetsConnection(template templateEnd) bool {
	return slices.ContainsFunc(t.sent, func(sent time.Duration) bool {
		for timeout := range t.timeouts {
			at := sent + timeout
			if at < template.at+template.slack+instant && template.at < at+late(timeout)+instant {
				return true
			}
		}
		return false
	})
}

// allOver returns the age at which nothing of a packet is left.
func (t *timing) allOver() time.Duration {
	longest := func(timeouts map[time.Duration]bool) (longest time.Duration) {
		for timeout := range timeouts {
			longest = max(longest, timeout+late(timeout))
		}
		return longest
	}
	const moreThanEnough = 5 * time.Minute
	return longest(t.timeouts) + longest(t.persists) + moreThanEnough
}

// forget lets go of packets of which nothing is left.
func (t *timing) forget() {
	over := t.allOver()
	t.sent = slices.DeleteFunc(t.sent, func(sent time.Duration) bool { return t.now-sent >= over && sent != t.sent[len(t.sent)-1] })
}
