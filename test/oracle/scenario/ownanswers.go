package scenario

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// outgoing are the columns OutPkts and OutBytes of ipvsadm --stats --exact, in a service's row
// or a real server's.
var outgoing = regexp.MustCompile(`^(\| .*\S +\d+ +\d+ )( *\d+)( +\d+ )( *\d+)$`)

// ForgetOwnAnswers gives a kernel's counts of outgoing packets the other machine's value where they
// are more by no more than what the kernel's own stack has sent to clients until then. IPVS takes
// such an ICMP error or RST, for a client that found no real server, for a real server's packet
// if the client's last connection is still in its table.
func ForgetOwnAnswers(kernel, other *Scenario) {
	sent := 0
	for i := range kernel.Steps {
		step := &kernel.Steps[i]
		if step.Verb == Send {
			for _, outcome := range strings.Join(step.Answer, "") {
				if outcome == icmpError || outcome == tcpAnswer {
					sent++
				}
			}
		}
		if len(step.Answer) != len(other.Steps[i].Answer) || !slices.Contains(step.Words, "--stats") {
			continue
		}
		for j, line := range step.Answer {
			step.Answer[j] = withoutAnswers(line, other.Steps[i].Answer[j], sent)
		}
	}
}

// withoutAnswers returns a row of counts without up to most packets of its own, if it then is
// the other machine's.
func withoutAnswers(line, other string, most int) string {
	is, want := outgoing.FindStringSubmatch(line), outgoing.FindStringSubmatch(other)
	if is == nil || want == nil {
		return line
	}
	difference := func(column int) int {
		a, errA := strconv.Atoi(strings.TrimSpace(is[column]))
		b, errB := strconv.Atoi(strings.TrimSpace(want[column]))
		if errA != nil || errB != nil {
			return 0
		}
		return a - b
	}
	const shortest, longest = 20 + 20, 1280 // a RST, and an ICMP error with what it quotes
	packets, bytes := difference(2), difference(4)
	if packets < 1 || packets > most || bytes < packets*shortest || bytes > packets*longest {
		return line
	}
	return fmt.Sprintf("%s%*s%s%*s", is[1], len(is[2]), strings.TrimSpace(want[2]), is[3], len(is[4]), strings.TrimSpace(want[4]))
}
