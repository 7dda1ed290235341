package oracle

import (
	"slices"
	"strings"

	"github.com/fairlead-lb/fairlead/internal/dataplane"
	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/test/oracle/scenario"
)

// What is not compared, and why. A case waits as a whole if it needs what the
// data plane does not have, unless it is one of partly.

// partly names the cases, besides the tunnels', from which commands that wait are left out, and that
// are compared up to the first sysctl.
var partly = []string{
	"errors", "dr/ipv4", "dr/ipv6", "dr/ipv4/mtu", "dr/ipv6/mtu", "nat/ipv4", "nat/ipv6", "nat/ipv4/mtu", "nat/ipv6/mtu", "no service",
}

// A waitingFrame is one that the data plane does not treat as IPVS does.
type waitingFrame struct {
	recording, what, why string
}

const (
	whyFragments     = "fragments: each travels in a tunnel's packet of its own, for good; IPVS puts them together, and fragments the tunnel's packet"
	whyOptions       = "record route: the director's address is not written into the option"
	whyFragmentation = "fragmentation: the packet in a tunnel is cut, for good; IPVS cuts the tunnel's packet"
	whyServerErrors  = "ICMPv6 errors of masqueraded real servers: IPVS drops them, by the wrong checksum"
	whyWrongStays    = "a wrong ICMPv6 checksum stays wrong"
	whyAnswersBack   = "an ICMP answer about a reply: it goes to the MAC address that the reply came from, and quotes it one hop older"
)

// waitingFrames are played all the same, and have to differ: one that does not is
// to be struck off.
var waitingFrames = []waitingFrame{
	{"dr/ipv4", "tcp data, IP options", whyOptions},
	{"nat/ipv4", "tcp data, IP options", whyOptions},
	{"nat/ipv4", "reply: tcp data, ttl 1", whyAnswersBack},
	{"nat/ipv6", "reply: tcp data, ttl 1", whyAnswersBack},
	{"nat/ipv4/mtu", "reply: tcp, 1500 bytes, DF", whyAnswersBack},
	{"nat/ipv6/mtu", "reply: tcp, 1500 bytes, DF", whyAnswersBack},
	{"nat/ipv6/mtu", "reply: tcp, 1500 bytes, not DF", whyAnswersBack},
	{"nat/ipv6", "port unreachable, wrong ICMP checksum", whyWrongStays},
	{"nat/ipv6", "from the real server to the client: packet too big, mtu 1400 about tcp", whyServerErrors},
	{"nat/ipv6", "from the real server to the client: port unreachable about tcp", whyServerErrors},
	{"nat/ipv6", "from the real server to the client: address unreachable about tcp", whyServerErrors},
	{"nat/ipv6", "from the real server to the client: time exceeded about tcp", whyServerErrors},
	{"nat/ipv6", "from the real server to the client: parameter problem about tcp", whyServerErrors},
	{"nat/ipv6", "from the real server to the client: port unreachable about udp", whyServerErrors},
	{"nat/ipv6", "from a router to the client: packet too big, mtu 1400", whyServerErrors},
}

// commandWaits returns why an ipvsadm command can't be carried out yet, or "".
func commandWaits(words []string) string {
	after := func(option string) string {
		if i := slices.Index(words, option); i >= 0 && i+1 < len(words) {
			return words[i+1]
		}
		return ""
	}
	scheduler := lvs.Scheduler(after("-s"))
	switch {
	case scheduler.Known() && !dataplane.HasScheduler(scheduler):
		return "scheduler " + string(scheduler)
	case slices.Contains(words, "-m") && strings.HasPrefix(after("-r"), "192.0.2."):
		return "masquerading to the director itself"
	case slices.Contains(words, "--start-daemon"), slices.Contains(words, "--stop-daemon"):
		return "the sync daemon"
	}
	return ""
}

// stepWaits returns why a step can't be carried out yet, or "".
func stepWaits(step *scenario.Step) string {
	switch step.Verb {
	case scenario.Ipvsadm:
		if slices.Equal(step.Answer[max(len(step.Answer)-1, 0):], []string{"= exit 2"}) {
			return "" // ipvsadm itself finds fault with it
		}
		for _, line := range step.Input {
			if why := commandWaits(strings.Fields(line)); why != "" {
				return why
			}
		}
		return commandWaits(step.Words)
	case scenario.Sysctl:
		name, _, _ := strings.Cut(step.Words[0], "=")
		if _, err := lvs.FindSysctl(name); err != nil {
			return "sysctl " + name
		}
	}
	return ""
}

// A waitingPart is what of a scenario waits: a frame, or with an empty name all
// of it.
type waitingPart struct{ what, why string }

// A plan says what of a scenario is played and what waits.
type plan struct {
	*scenario.Scenario
	played  *scenario.Scenario // the steps to be played, or nil
	waiting []waitingPart
}

func newPlan(s *scenario.Scenario) plan {
	p := plan{Scenario: s}
	inPart := slices.Contains(partly, s.Name) || isTunnel(s.Name)
	played := &scenario.Scenario{Name: s.Name}
	for i := range s.Steps {
		step := &s.Steps[i]
		why := stepWaits(step)
		if why != "" && !inPart {
			p.waiting = []waitingPart{{"", why}}
			return p
		}
		if why != "" && step.Verb != scenario.Ipvsadm {
			p.leaveOut(s.Steps[i:], why)
			break
		}
		if why == "" {
			played.Steps = append(played.Steps, *step)
		}
	}
	for i := range played.Steps {
		if why := p.frameWaits(&played.Steps[i]); why != "" {
			p.waiting = append(p.waiting, waitingPart{frameName(&played.Steps[i]), why})
		}
	}
	p.played = played
	return p
}

// leaveOut notes that the rest of a scenario waits.
func (p *plan) leaveOut(steps []scenario.Step, why string) {
	for i := range steps {
		if steps[i].Verb == scenario.Frame {
			p.waiting = append(p.waiting, waitingPart{frameName(&steps[i]), why})
		}
	}
}

// frameName returns what a frame is called, without its interface.
func frameName(step *scenario.Step) string { return strings.Join(step.Words[1:], " ") }

const (
	whyInTunnels = "ICMP errors about a tunnel's own packet are not relayed: the client's next packet is answered"
	whyPathMTU   = "path MTU: the kernel learns that of a tunnel within IPv4 alone, fairlead of each"
)

// tunnelWaits tells of an error about a tunnel's own packet, which IPVS relays from IPv4
// to IPv4 alone, and of the packet that comes after it.
func (p *plan) tunnelWaits(step *scenario.Step) string {
	if !strings.HasPrefix(p.Name, "tun ") {
		return ""
	}
	within := strings.HasSuffix(p.Name, "/ipv4") && !strings.Contains(p.Name, "other family")
	name := frameName(step)
	switch {
	case within && strings.HasPrefix(name, "to the director about the tunnel's packet, 200 bytes"):
		return whyInTunnels
	case !within && strings.HasSuffix(name, ", after that"):
		return whyPathMTU
	}
	return ""
}

// frameWaits returns why a frame is not treated as IPVS does, or "".
func (p *plan) frameWaits(step *scenario.Step) string {
	if step.Verb != scenario.Frame {
		return ""
	}
	if why := p.tunnelWaits(step); why != "" {
		return why
	}
	for _, w := range waitingFrames {
		if w.recording == p.Name && w.what == frameName(step) {
			return w.why
		}
	}
	if isTunnel(p.Name) {
		return tunnelFrameWaits(p.Name, frameName(step))
	}
	return ""
}

// isTunnel reports whether a recording is one of the tunnels', which all have the
// same frames.
func isTunnel(recording string) bool { return strings.HasPrefix(recording, "tun ") }

// tunnelFrameWaits returns why a frame of a tunnel's recording is not treated as
// IPVS does, or "".
func tunnelFrameWaits(recording, frame string) string {
	switch {
	case frame == "udp, last fragment":
		return whyFragments
	case frame == "tcp data, IP options":
		return whyOptions
	case strings.HasSuffix(recording, "/ipv4/mtu") && frame == "tcp, 1500 bytes, not DF":
		return whyFragmentation
	}
	return ""
}
