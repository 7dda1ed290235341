package journey

import (
	"fmt"
	"slices"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// Switch is where a step is that tells what a switch has learnt.
const Switch = "switch"

// A Learning is a new entry of a switch's table: frames to the MAC address leave by
// the port from then on.
type Learning struct {
	MAC  lvs.MAC
	Port string // its name
	Host string // whose wire it is
}

// Weave adds to the story what the switch has learnt meanwhile, in the order in
// which it did. Each Learning becomes a step behind the frame that taught it: the
// first one from that MAC address on the port's wire, or the first after the one that
// taught the switch another port. Learnings of hosts that are not on the story's way,
// that no frame explains, or that came after its end, are left out.
func (st *Story) Weave(frames []Frame, learnt []Learning, cast Cast) {
	if len(st.Steps) == 0 {
		return
	}
	way := map[string]bool{}
	for _, step := range st.Steps {
		way[step.At] = true
	}
	end := st.Steps[len(st.Steps)-1].Time
	ordered := inOrder(frames)
	next := map[lvs.MAC]int{} // where to look for the next lesson
	for _, l := range learnt {
		i := slices.IndexFunc(ordered[next[l.MAC]:], func(f Frame) bool {
			return f.Host == l.Host && f.Direction == Out && Decode(f.Data).SourceMAC == l.MAC
		})
		if i < 0 {
			continue
		}
		i += next[l.MAC]
		next[l.MAC] = i + 1
		if !way[l.Host] || ordered[i].Time.After(end) {
			continue
		}
		st.insert(cast.lesson(seen{ordered[i], Decode(ordered[i].Data)}, l))
	}
	for i := range st.Steps {
		st.Steps[i].Step = i + 1
	}
}

// insert puts the step behind all that are not later.
func (st *Story) insert(step Step) {
	i := slices.IndexFunc(st.Steps, func(s Step) bool { return s.Time.After(step.Time) })
	if i < 0 {
		i = len(st.Steps)
	}
	st.Steps = slices.Insert(st.Steps, i, step)
}

// lesson returns the step of the frame at the switch.
func (c Cast) lesson(s seen, l Learning) Step {
	step := c.step(s)
	step.At, step.Direction, step.Detail = Switch, In, ""
	step.What = fmt.Sprintf("learns: %s is on port %s", step.SourceHost, l.Port)
	return step
}
