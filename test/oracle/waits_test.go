package oracle

import (
	"slices"
	"strings"

	"github.com/fairlead-lb/fairlead/internal/dataplane"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// What is not compared, and why. A case waits as a whole if it needs what the
// data plane does not have, unless it is one of partly.

// defaultSysctls are the kernel's values of the sysctls under net.ipv4.vs, which
// the data plane behaves by.
var defaultSysctls = map[string]int{
	"conn_reuse_mode":    1,
	"expire_nodest_conn": 0,
}

// partly names the cases from which commands that wait are left out, and that
// are compared up to the first sysctl.
var partly = []string{"dr/ipv4", "dr/ipv6", "dr/ipv4/mtu", "dr/ipv6/mtu", "no service"}

// A waitingFrame is one that the data plane does not treat as IPVS does.
type waitingFrame struct {
	recording, what, why string
}

const (
	whySCTP      = "SCTP"
	whyFragments = "fragments: passed to the host"
)

// waitingFrames are played all the same, and have to differ: one that does not is
// to be struck off.
var waitingFrames = []waitingFrame{
	{"dr/ipv4", "sctp INIT", whySCTP},
	{"dr/ipv6", "sctp INIT", whySCTP},
	{"dr/ipv4", "udp, first fragment", whyFragments},
	{"dr/ipv4", "udp, last fragment", whyFragments},
	{"dr/ipv6", "udp, first fragment", whyFragments},
	{"dr/ipv6", "udp, last fragment", whyFragments},
	{"dr/ipv4", "tcp data, IP options", "record route: the director's address is not written into the option"},
	{"dr/ipv4/mtu", "tcp, 1500 bytes, not DF", "fragmentation: what is too big is dropped"},
}

// commandWaits returns why an ipvsadm command can't be carried out yet, or "".
func commandWaits(command string) string {
	words := strings.Fields(command)
	after := func(option string) string {
		if i := slices.Index(words, option); i >= 0 && i+1 < len(words) {
			return words[i+1]
		}
		return ""
	}
	scheduler := lvs.Scheduler(after("-s"))
	switch {
	case scheduler != "" && !dataplane.HasScheduler(scheduler):
		return "scheduler " + string(scheduler)
	case slices.Contains(words, "-o"):
		return "one-packet scheduling"
	case slices.Contains(words, "-f"):
		return "firewall marks"
	case slices.Contains(words, "--sctp-service"):
		return whySCTP
	case slices.Contains(words, "-m"):
		return "masquerading"
	case slices.Contains(words, "-i"):
		return "tunnelling"
	}
	return ""
}

// waits returns why a step can't be carried out yet, or "".
func (st *step) waits() string {
	for _, command := range st.Do {
		if why := commandWaits(command); why != "" {
			return why
		}
	}
	for name, value := range st.Sysctl {
		if known, ok := defaultSysctls[name]; !ok || known != value {
			return "sysctl " + name
		}
	}
	if st.Run != nil {
		return "ipvsadm's own output"
	}
	return ""
}

// A waitingPart is what of a recording waits: a frame, or with an empty name all
// of it.
type waitingPart struct{ what, why string }

// A plan says what of a recording is played and what waits.
type plan struct {
	*recording
	steps    []step // to be played
	compared int    // read-outs among them
	waiting  []waitingPart
}

func newPlan(r *recording) plan {
	p := plan{recording: r}
	inPart := slices.Contains(partly, r.Name)
	for i, st := range r.Steps {
		why := st.waits()
		if why != "" && !inPart {
			return plan{recording: r, waiting: []waitingPart{{"", why}}}
		}
		if why != "" && st.Do == nil {
			p.leaveOut(r.Steps[i:], why)
			break
		}
		st.Do = slices.DeleteFunc(slices.Clone(st.Do), func(command string) bool { return commandWaits(command) != "" })
		p.add(st)
	}
	return p
}

func (p *plan) add(st step) {
	p.steps = append(p.steps, st)
	if st.Frame != nil {
		if why := p.frameWaits(st.Frame); why != "" {
			p.waiting = append(p.waiting, waitingPart{st.Frame.What, why})
			return
		}
	}
	if st.reads() {
		p.compared++
	}
}

// leaveOut notes that the rest of a recording waits.
func (p *plan) leaveOut(steps []step, why string) {
	for _, st := range steps {
		if st.Frame != nil {
			p.waiting = append(p.waiting, waitingPart{st.Frame.What, why})
		}
	}
}

// frameWaits returns why a frame is not treated as IPVS does, or "".
func (p *plan) frameWaits(f *frame) string {
	for _, w := range waitingFrames {
		if w.recording == p.Name && w.what == f.What {
			return w.why
		}
	}
	return ""
}
