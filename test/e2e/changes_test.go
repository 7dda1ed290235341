package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lab"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// The long proof takes its size from here: -changes 1000.
var (
	changes    = flag.Int("changes", 30, "how `many` random changes of the configuration are made under load")
	changeSeed = flag.Uint64("changes-seed", 0, "repeats the changes of one `run`; 0: others")
)

// A changer changes the configuration of a director at random. Services under load keep
// one server that is good, and those that leave them are drained before.
type changer struct {
	t      *testing.T
	lab    *lab.Lab
	random *rand.Rand
	loaded []netip.AddrPort
	good   string // the server that stays
	done   map[string]int
}

// Whatever is changed, files, rules and drains in turn, no request fails.
func TestRandomChangesUnderLoad(t *testing.T) {
	requireCommand(t, "ab", "apache2-utils")
	seed := *changeSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-changes-seed %d", seed)
	// Their real servers take direct routing, too.
	l := mustUpAs(t, lab.Config{Name: "changes", Directory: labDirectory(t), Servers: 3, Method: lab.TunnelIPIP})
	c := &changer{
		t: t, lab: l, random: rand.New(rand.NewPCG(seed, 0)), good: l.Servers()[0].Name, done: map[string]int{},
		loaded: []netip.AddrPort{service(lab.IPv4, lab.HTTPPort), service(lab.IPv6, lab.HTTPPort)},
	}
	c.apply()
	load := newLoad(t, l, c.loaded[0])
	begun := time.Now()
	for i := range *changes {
		c.change()
		if _, err := l.Get(t.Context(), c.loaded[1]); err != nil {
			t.Fatalf("after %d changes: %v", i+1, err)
		}
	}
	took := time.Since(begun)
	requests := load.finish()
	t.Logf("%d changes in %s, %v; %d requests beside them", *changes, took.Round(time.Millisecond), c.done, requests)
}

func (c *changer) change() {
	c.t.Helper()
	kinds := []struct {
		name string
		do   func()
	}{
		{"apply", c.apply}, {"apply", c.apply}, {"apply", c.apply}, {"rollback", c.rollback},
		{"edit service", c.editService}, {"edit server", c.editServer}, {"add server", c.addServer}, {"delete server", c.deleteServer},
		{"drain", c.drain}, {"undrain", c.undrain}, {"sysctl", c.sysctl},
	}
	kind := kinds[c.random.IntN(len(kinds))]
	kind.do()
	c.done[kind.name]++
}

func (c *changer) run(args ...string) {
	c.t.Helper()
	mustOutput(c.t, c.lab, lab.Director, args[0], args[1:]...)
}

// pick returns one of some words.
func (c *changer) pick(words ...string) string { return words[c.random.IntN(len(words))] }

// familyOf returns the family of a service.
func familyOf(at netip.AddrPort) lab.Family {
	if at.Addr().Is6() {
		return lab.IPv6
	}
	return lab.IPv4
}

// serversNow returns the names of the servers that a service has, also of those that
// checks or drains withhold.
func (c *changer) serversNow(at netip.AddrPort) map[string]bool {
	c.t.Helper()
	there := map[string]bool{}
	for _, s := range mustServices(c.t, c.lab) {
		if netip.AddrPortFrom(s.Address, s.Port) != at || s.Protocol != lvs.TCP {
			continue
		}
		for _, r := range s.All() {
			for _, host := range c.lab.Servers() {
				if host.Address(familyOf(at)) == r.Address {
					there[host.Name] = true
				}
			}
		}
	}
	return there
}

// scheduler returns one that always finds the server that is left: ovf refuses clients when
// all have as many connections as their weight says, dh when its one server has weight 0.
func (c *changer) scheduler() (name, flags string) {
	name = c.pick("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sed", "nq", "fo", "twos", "sh", "mh")
	if name == "sh" || name == "mh" {
		flags = name + "-fallback"
	}
	return name, flags
}

// apply applies a random file. A server that is there is not left out, but for those that
// were added by hand.
func (c *changer) apply() {
	c.t.Helper()
	var text strings.Builder
	// Without expire_nodest_conn a client that uses a port again waits for two minutes, as with
	// IPVS, if its last connection was with a server that is gone.
	fmt.Fprintf(&text, "sysctls: {expire_nodest_conn: 1, timeout_udp: %dm, expire_quiescent_template: %d}\n", 1+c.random.IntN(9), c.random.IntN(2))
	text.WriteString("services:\n")
	for _, at := range c.loaded {
		there := c.serversNow(at)
		scheduler, flags := c.scheduler()
		fmt.Fprintf(&text, "  - address: \"tcp:%s\"\n    scheduler: %s\n", at, scheduler)
		if flags != "" {
			fmt.Fprintf(&text, "    flags: [%s]\n", flags)
		}
		if c.random.IntN(4) == 0 {
			fmt.Fprintf(&text, "    persistence: %ds\n", 1+c.random.IntN(60))
		}
		if c.random.IntN(3) == 0 {
			text.WriteString("    checks: [{type: tcp, interval: 1s, timeout: 900ms, fall: 3}]\n")
		}
		text.WriteString("    servers:\n")
		for _, i := range c.random.Perm(len(c.lab.Servers())) {
			host := c.lab.Servers()[i]
			weight := c.random.IntN(5)
			if host.Name == c.good {
				weight++
			} else if !there[host.Name] && c.random.IntN(2) == 0 {
				continue
			}
			fmt.Fprintf(&text, "      - {address: \"%s\", weight: %d, method: %s}\n", host.Address(familyOf(at)), weight, c.pick("dr", "tunnel"))
		}
	}
	for i := range c.random.IntN(5) {
		fmt.Fprintf(&text, "  - address: %s:203.0.113.%d:%d\n    scheduler: %s\n    servers: [{address: 192.0.2.%d, method: %s, weight: %d}]\n",
			c.pick("tcp", "udp", "sctp"), 1+i, 1000+c.random.IntN(3), c.pick("dh", "sh", "mh", "wlc"), 201+c.random.IntN(3),
			c.pick("dr", "tunnel", "masquerade"), c.random.IntN(9))
	}
	file := filepath.Join(c.t.TempDir(), "changed.yaml")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		c.t.Fatal(err)
	}
	args := []string{"fairlead", "apply", "-f", file}
	if c.random.IntN(2) == 0 {
		args = append(args, "--prune")
	}
	c.run(args...)
}

// rollback takes the last file back, where no server goes with it.
func (c *changer) rollback() {
	c.t.Helper()
	out, err := c.lab.Output(c.t.Context(), lab.Director, "fairlead", "rollback", "--dry-run")
	if err != nil || strings.Contains(out, "- delete real server") && strings.Contains(out, lab.IPv4.VIP().String()) ||
		strings.Contains(out, "- delete real server") && strings.Contains(out, lab.IPv6.VIP().String()) {
		return
	}
	c.run("fairlead", "rollback")
}

func (c *changer) editService() {
	c.t.Helper()
	scheduler, flags := c.scheduler()
	args := []string{"ipvsadm", "-E", "-t", c.loaded[c.random.IntN(2)].String(), "-s", scheduler}
	if flags != "" {
		args = append(args, "-b", flags)
	}
	c.run(args...)
}

// other returns a random server that is, or is not, of a random service under load: not the
// one that stays. There may be none.
func (c *changer) other(there bool) (at netip.AddrPort, server lab.Host, ok bool) {
	c.t.Helper()
	at = c.loaded[c.random.IntN(2)]
	has := c.serversNow(at)
	for _, i := range c.random.Perm(len(c.lab.Servers())) {
		if server = c.lab.Servers()[i]; server.Name != c.good && has[server.Name] == there {
			return at, server, true
		}
	}
	return at, server, false
}

func (c *changer) editServer() {
	c.t.Helper()
	if at, server, ok := c.other(true); ok {
		rip := netip.AddrPortFrom(server.Address(familyOf(at)), at.Port()).String()
		c.run("ipvsadm", "-e", "-t", at.String(), "-r", rip, c.pick("-g", "-i"), "-w", fmt.Sprint(c.random.IntN(6)))
	}
}

func (c *changer) addServer() {
	c.t.Helper()
	if at, server, ok := c.other(false); ok {
		rip := netip.AddrPortFrom(server.Address(familyOf(at)), at.Port()).String()
		c.run("ipvsadm", "-a", "-t", at.String(), "-r", rip, c.pick("-g", "-i"), "-w", fmt.Sprint(c.random.IntN(6)))
	}
}

// deleteServer takes a server out when nothing is left of its connections.
func (c *changer) deleteServer() {
	c.t.Helper()
	if at, server, ok := c.other(true); ok {
		rip := netip.AddrPortFrom(server.Address(familyOf(at)), at.Port()).String()
		c.run("fairlead", "drain", rip, "--wait", "--deadline", "30s")
		c.wantNothingLeft(server.Address(familyOf(at)))
		c.run("ipvsadm", "-d", "-t", at.String(), "-r", rip)
	}
}

// wantNothingLeft wants a server that is drained to have no connection: each request takes
// a moment, and one that stays is told, not waited for.
func (c *changer) wantNothingLeft(server netip.Addr) {
	c.t.Helper()
	for _, d := range c.drains() {
		if d.Server.Address == server && d.Left > 0 {
			c.t.Fatalf("%d connections are left after a drain of %s of %s:\n%s", d.Left, d.Server, d.Service,
				mustOutput(c.t, c.lab, lab.Director, "fairlead", "conns"))
		}
	}
}

func (c *changer) drains() []lvs.Drain {
	c.t.Helper()
	client := c.lab.DirectorClient()
	defer client.Close()
	drains, err := client.Drains(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	return drains
}

func (c *changer) drain() {
	c.t.Helper()
	if at, server, ok := c.other(true); ok {
		c.run("fairlead", "drain", server.Address(familyOf(at)).String())
	}
}

// undrain is of whatever is drained.
func (c *changer) undrain() {
	c.t.Helper()
	if drains := c.drains(); len(drains) > 0 {
		c.run("fairlead", "undrain", drains[c.random.IntN(len(drains))].Server.Address.String())
	}
}

func (c *changer) sysctl() {
	c.t.Helper()
	c.run("fairlead", "sysctl", c.pick("slow_start=0", "slow_start=2", "timeout_established=900", "timeout_established=300"))
}
