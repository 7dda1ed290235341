package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fairlead-lb/fairlead/internal/lab"
)

// losses are what a lab's hosts count of packets that went no further: their
// interfaces and sockets, the backlog of the processors, and the director's verdicts
// but for those that send a packet on its way.
type losses map[string]uint64

// lossesOf reads them all.
func lossesOf(t *testing.T, l *lab.Lab) losses {
	t.Helper()
	all := losses{}
	hosts := []string{lab.Switch}
	for _, host := range l.Hosts() {
		hosts = append(hosts, host.Name)
	}
	for _, host := range hosts {
		for line := range strings.Lines(mustOutput(t, l, host, "cat", "/proc/net/dev")) {
			name, values, ok := strings.Cut(line, ":")
			fields := strings.Fields(values)
			if !ok || len(fields) < 16 {
				continue
			}
			name = host + " " + strings.TrimSpace(name)
			// Errors and drops, received and sent (net/core/net-procfs.c).
			for i, what := range map[int]string{2: "receive errors", 3: "receive drops", 10: "transmit errors", 11: "transmit drops"} {
				all.add(t, name+" "+what, fields[i], 10)
			}
		}
		all.addUDP(t, host, mustOutput(t, l, host, "cat", "/proc/net/snmp"))
	}
	for i, line := range strings.Split(strings.TrimSpace(mustOutput(t, l, lab.Switch, "cat", "/proc/net/softnet_stat")), "\n") {
		all.add(t, fmt.Sprintf("processor %d backlog drops", i), strings.Fields(line)[1], 16)
	}
	client := l.DirectorClient()
	defer client.Close()
	status, err := client.Status(t.Context())
	if err != nil {
		t.Logf("the director's verdicts: %v", err)
	}
	for _, v := range status.Verdicts {
		if v.Name != "forward" && v.Packets > 0 {
			all["director verdict "+v.Name] = v.Packets
		}
	}
	return all
}

// addUDP takes the errors from the two lines, names and values, that a host's
// /proc/net/snmp has of UDP.
func (c losses) addUDP(t *testing.T, host, snmp string) {
	t.Helper()
	var names []string
	for line := range strings.Lines(snmp) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0 || fields[0] != "Udp:":
		case names == nil:
			names = fields
		default:
			for i, name := range names {
				if name == "NoPorts" || strings.HasSuffix(name, "Errors") {
					c.add(t, host+" UDP "+name, fields[i], 10)
				}
			}
		}
	}
}

func (c losses) add(t *testing.T, name, value string, base int) {
	t.Helper()
	n, err := strconv.ParseUint(value, base, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	c[name] += n
}

// since tells what has grown.
func (c losses) since(before losses) string {
	var grown []string
	for _, name := range slices.Sorted(maps.Keys(c)) {
		if n := c[name] - before[name]; n > 0 {
			grown = append(grown, fmt.Sprintf("%s: %d", name, n))
		}
	}
	if grown == nil {
		return "nothing is counted as lost"
	}
	return strings.Join(grown, "\n")
}
