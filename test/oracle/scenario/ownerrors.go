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

// ForgetOwnErrors gives a kernel's counts of outgoing packets the other machine's value where they
// are more by no more than the ICMP errors that the kernel has sent to clients until then, and
// that had to be. IPVS takes such an error of its own for a real server's packet, if the client
// that found no real server has another connection still in its table.
func ForgetOwnErrors(kernel, other *Scenario) {
	sent := 0
	for i := range kernel.Steps {
		step := &kernel.Steps[i]
		if step.Verb == Send {
			sent += strings.Count(strings.Join(step.Answer, ""), string(icmpError))
		}
		if len(step.Answer) != len(other.Steps[i].Answer) || !slices.Contains(step.Words, "--stats") {
			continue
		}
		for j, line := range step.Answer {
			step.Answer[j] = withoutErrors(line, other.Steps[i].Answer[j], sent)
		}
	}
}

// withoutErrors returns a row of counts without up to most errors of its own, if it then is
// the other machine's.
func withoutErrors(line, other string, most int) string {
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
	const shortest, longest = 20 + 8 + 20 + 8, 1280 // an ICMP error with what it quotes
	errors, bytes := difference(2), difference(4)
	if errors < 1 || errors > most || bytes < errors*shortest || bytes > errors*longest {
		return line
	}
	return fmt.Sprintf("%s%*s%s%*s", is[1], len(is[2]), strings.TrimSpace(want[2]), is[3], len(is[4]), strings.TrimSpace(want[4]))
}
