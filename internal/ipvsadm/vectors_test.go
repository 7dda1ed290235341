package ipvsadm

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// testNames are the names that the recorded runs used; no other host has one.
type testNames struct{ hosts map[netip.Addr]string }

var testServices = map[string]uint16{"http": 80, "https": 443, "domain": 53}

func (n testNames) address(_ context.Context, host string) (netip.Addr, bool) {
	for addr, name := range n.hosts {
		if name == host && addr.Is4() {
			return addr, true
		}
	}
	return netip.Addr{}, false
}

func (n testNames) host(_ context.Context, addr netip.Addr) (string, bool) {
	name, ok := n.hosts[addr]
	return name, ok
}

func (n testNames) port(service string, protocol lvs.Protocol) (uint16, bool) {
	port, ok := testServices[service]
	return port, ok && (protocol == lvs.TCP || protocol == lvs.UDP)
}

func (n testNames) service(port uint16, protocol lvs.Protocol) (string, bool) {
	for name, p := range testServices {
		if p == port && (protocol == lvs.TCP || protocol == lvs.UDP) {
			return name, true
		}
	}
	return "", false
}

// An outcome is what a command line came to.
type outcome struct {
	Status         int
	Stdout, Stderr string
}

// play runs one command line of ours on d.
func play(ctx context.Context, d Director, names resolver, args []string, stdin string) outcome {
	var stdout, stderr bytes.Buffer
	inv := &invocation{
		ctx:     ctx,
		connect: func(context.Context) (Director, error) { return d, nil },
		names:   names,
		stdin:   strings.NewReader(stdin),
		stdout:  bufio.NewWriter(&stdout),
		stderr:  &stderr,
	}
	status := inv.run(args)
	return outcome{status, stdout.String(), stderr.String()}
}

// A vectorRun is one recorded run of ipvsadm 1.31.
type vectorRun struct {
	Args   []string `json:"args"`
	Stdin  string   `json:"stdin"`
	Status int      `json:"rc"`
	Stdout string   `json:"stdout"`
	Stderr string   `json:"stderr"`
}

type vectorCase struct {
	Name  string `json:"name"`
	Steps []struct {
		Run  *vectorRun `json:"run"`
		Note string     `json:"note"`
		Text *struct {
			Text string `json:"text"`
		} `json:"text"`
	} `json:"steps"`
}

func mustVectors(tb testing.TB) []vectorCase {
	tb.Helper()
	data, err := os.ReadFile("testdata/list.json")
	if err != nil {
		tb.Fatal(err)
	}
	var file struct {
		Cases []vectorCase `json:"cases"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		tb.Fatal(err)
	}
	return file.Cases
}

// TestVectors plays what ipvsadm 1.31 did on a real kernel, and compares what
// it printed and its exit status.
func TestVectors(t *testing.T) {
	const (
		whole   = 206 // compared to the byte
		inPart  = 3   // -c: without the rows of what package lvs has no words for
		refused = 19  // sync daemons, which fairlead has not
		skipped = 1
	)
	count := map[string]int{}
	for _, c := range mustVectors(t) {
		t.Run(c.Name, func(t *testing.T) {
			d := newFakeDirector()
			for i, step := range c.Steps {
				if step.Note != "" {
					absorb(t, d, c, i+1)
				}
				if step.Run == nil {
					continue
				}
				count[playStep(t, d, i, step.Run)]++
			}
		})
	}
	if diff := cmp.Diff(map[string]int{"whole": whole, "in part": inPart, "refused": refused, "skipped": skipped}, count); diff != "" {
		t.Errorf("steps compared (-want +got):\n%s", diff)
	}
}

// playStep plays one step and returns how it was compared.
func playStep(t *testing.T, d *fakeDirector, i int, run *vectorRun) string {
	t.Helper()
	want := outcome{run.Status, run.Stdout, run.Stderr}
	how := "whole"
	command := strings.Join(run.Args, " ")
	switch {
	case command == "-a -t [2001:db8:2::10]:80 -r 198.51.100.13:80 -i" && run.Status == statusRefused:
		// Refused only because a sync daemon was running; done, it would change
		// what the next steps print.
		return "skipped"
	case strings.Contains(command, "-daemon ") && run.Status != statusUsage && !strings.HasPrefix(run.Stderr, "Try "):
		verb := strings.TrimPrefix(strings.TrimSuffix(run.Args[0], "-daemon"), "--")
		want = outcome{statusFailed, "", "ipvsadm: " + verb + " the sync daemon: not supported yet\n"}
		how = "refused"
	case command == "-L -n --daemon" && run.Stdout != "":
		want.Stdout = "" // none runs
		how = "refused"
	}
	got := play(t.Context(), d, testNames{}, run.Args, run.Stdin)
	switch {
	case strings.HasPrefix(want.Stdout, "IPVS connection entries") && strings.Count(want.Stdout, "\n") > 2:
		want.Stdout, got.Stdout = sortRows(expressible(want.Stdout)), sortRows(got.Stdout)
		how = "in part"
	case slices.Contains(run.Args, "--nosort"):
		want.Stdout, got.Stdout = sortServices(want.Stdout), sortServices(got.Stdout)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("step %d: ipvsadm %q (-want +got):\n%s", i, run.Args, diff)
	}
	return how
}

// expressible removes the rows that lvs.Connection has no words for: templates
// of persistence that are not assured, persistence engine data.
func expressible(listing string) string {
	var out strings.Builder
	for line := range strings.Lines(listing) {
		if !strings.Contains(line, "NONE") {
			out.WriteString(line)
		}
	}
	return out.String()
}

// sortRows sorts all lines but the first two: the kernel lists in the order of
// a hash table.
func sortRows(listing string) string {
	lines := slices.Collect(strings.Lines(listing))
	slices.Sort(lines[2:])
	return strings.Join(lines, "")
}

// sortServices sorts the services of a listing, each with its servers.
func sortServices(listing string) string {
	var blocks []string
	for line := range strings.Lines(listing) {
		if strings.HasPrefix(line, "  -> ") && len(blocks) > 0 {
			blocks[len(blocks)-1] += line
		} else {
			blocks = append(blocks, line)
		}
	}
	slices.Sort(blocks)
	return strings.Join(blocks, "")
}

// absorb gives d the counters and connections that the traffic told of in a note
// left: they are read from the listings that were recorded after it.
func absorb(t *testing.T, d *fakeDirector, c vectorCase, from int) {
	t.Helper()
	for _, step := range c.Steps[from:] {
		switch {
		case step.Note != "" || (step.Run != nil && step.Run.Args[0] == "-Z"):
			return
		case step.Text != nil:
			d.connections = mustProcConnections(t, step.Text.Text)
		case step.Run != nil && step.Run.Args[0] == "-L":
			absorbListing(t, d, step.Run)
		}
	}
}

func absorbListing(t *testing.T, d *fakeDirector, run *vectorRun) {
	t.Helper()
	command := strings.Join(run.Args, " ")
	exact := strings.HasSuffix(command, "--exact")
	var svc *lvs.ServiceStatus
	for line := range strings.Lines(run.Stdout) {
		var numbers []uint64
		fields := strings.Fields(line)
		for i, field := range fields {
			if n, err := strconv.ParseUint(field, 10, 64); err == nil && i >= 2 {
				numbers = append(numbers, n)
			}
		}
		if len(fields) < 2 {
			continue
		}
		if key, ok := rowKey(fields); ok {
			var err error
			if svc, err = d.find(key); err != nil {
				t.Fatal(err)
			}
			if exact && strings.Contains(command, "--stats") {
				svc.Counters = mustCounters(t, numbers)
			} else if exact && strings.Contains(command, "--rate") {
				svc.Rates = lvs.Rates(mustCounters(t, numbers))
			}
			continue
		}
		addr, err := netip.ParseAddrPort(fields[1])
		if fields[0] != "->" || err != nil {
			continue
		}
		rs := findServer(svc, lvs.RealServerKey{Address: addr.Addr(), Port: addr.Port()})
		switch {
		case exact && strings.Contains(command, "--stats"):
			rs.Counters = mustCounters(t, numbers)
		case exact && strings.Contains(command, "--rate"):
			rs.Rates = lvs.Rates(mustCounters(t, numbers))
		case strings.HasSuffix(command, "--persistent-conn") && len(numbers) == 4:
			rs.Persistent, rs.Active, rs.Inactive = uint32(numbers[1]), uint32(numbers[2]), uint32(numbers[3])
		}
	}
}

// rowKey reads the first columns of a service's row.
func rowKey(fields []string) (lvs.ServiceKey, bool) {
	protocol, ok := map[string]lvs.Protocol{"TCP": lvs.TCP, "UDP": lvs.UDP, "SCTP": lvs.SCTP}[fields[0]]
	addr, err := netip.ParseAddrPort(fields[1])
	if ok && err == nil {
		return lvs.ServiceKey{Protocol: protocol, Address: addr.Addr(), Port: addr.Port()}, true
	}
	mark, err := strconv.ParseUint(fields[1], 10, 32)
	if fields[0] == "FWM" && err == nil {
		return lvs.MarkKey(uint32(mark), fields[2] == "IPv6"), true
	}
	return lvs.ServiceKey{}, false
}

func mustCounters(t *testing.T, n []uint64) lvs.Counters {
	t.Helper()
	if len(n) < 5 {
		t.Fatalf("counters of a row: %d", n)
	}
	n = n[len(n)-5:]
	return lvs.Counters{Connections: n[0], InPackets: n[1], OutPackets: n[2], InBytes: n[3], OutBytes: n[4]}
}

// mustProcConnections reads /proc/net/ip_vs_conn, without what lvs.Connection
// has no words for.
func mustProcConnections(t *testing.T, text string) []lvs.Connection {
	t.Helper()
	address := func(hex string) netip.Addr {
		if strings.Contains(hex, ":") {
			return netip.MustParseAddr(hex)
		}
		n, err := strconv.ParseUint(hex, 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		return addrFromUint32(uint32(n))
	}
	endpoint := func(addr, port string) netip.AddrPort {
		n, err := strconv.ParseUint(port, 16, 16)
		if err != nil {
			t.Fatal(err)
		}
		return netip.AddrPortFrom(address(addr), uint16(n))
	}
	protocols := map[string]lvs.Protocol{"TCP": lvs.TCP, "UDP": lvs.UDP, "SCTP": lvs.SCTP}
	var out []lvs.Connection
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		state, err := lvs.ParseConnectionState(protocols[f[0]], f[7])
		if err != nil || state == lvs.StateNone {
			continue
		}
		seconds, err := strconv.Atoi(f[8])
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, lvs.Connection{
			Protocol: protocols[f[0]],
			Client:   endpoint(f[1], f[2]), Virtual: endpoint(f[3], f[4]), Server: endpoint(f[5], f[6]),
			State:   state,
			Expires: time.Duration(seconds)*time.Second + 900*time.Millisecond,
		})
	}
	return out
}
