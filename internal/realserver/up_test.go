package realserver

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

var (
	vip4  = netip.MustParseAddr("192.0.2.100")
	vip4b = netip.MustParseAddr("192.0.2.101")
	vip6  = netip.MustParseAddr("2001:db8::100")
	both  = Request{VIPs: []netip.Addr{vip4, vip6}}
)

func same(t *testing.T, what, before, after string) {
	t.Helper()
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(after, "\n")); diff != "" {
		t.Errorf("%s: not as before:\n%s", what, diff)
	}
}

func wrongOf(points []Point) []string {
	var names []string
	for _, p := range points {
		if !p.OK {
			names = append(names, p.Name)
		}
	}
	return names
}

func TestUpAndDownLeaveNothing(t *testing.T) {
	h, _ := newServer(t)
	// Odd values, which must come back as they are.
	h.sysctl("net/ipv4/conf/eth0/arp_ignore", "3")
	h.sysctl("net/ipv4/conf/lo/arp_announce", "1")
	before := h.everything()
	if wrong := wrongOf(h.mustCheck(both)); len(wrong) != 8 {
		t.Errorf("wrong before: %q, want six sysctls and two addresses", wrong)
	}
	plan := h.mustUp(both)
	if len(plan.Changes()) != 8 || len(plan.Exposed) != 0 {
		t.Errorf("changes %q, exposed %v", plan.Changes(), plan.Exposed)
	}
	if wrong := wrongOf(h.mustCheck(Request{})); len(wrong) != 0 {
		t.Errorf("wrong after up: %q", wrong)
	}
	up := h.everything()
	if again := h.mustUp(both).Changes(); len(again) != 0 {
		t.Errorf("the second time: %q", again)
	}
	same(t, "up twice", up, h.everything())

	more := h.mustUp(Request{VIPs: []netip.Addr{vip4b}}).Changes()
	if want := []string{"192.0.2.101/32 on lo: added"}; !slices.Equal(more, want) {
		t.Errorf("one VIP more: %q, want %q", more, want)
	}
	if checked := h.mustCheck(Request{}); len(wrongOf(checked)) != 0 || len(checked) != 9 {
		t.Errorf("with one VIP more: %+v", checked)
	}
	must(t, "one VIP less", h.with(nil, func(r *RealServer) error {
		_, err := r.Down([]netip.Addr{vip4b}, false)
		return err
	}))
	same(t, "one VIP less", up, h.everything())

	h.mustDown()
	same(t, "up and down", before, h.everything())
	if again := h.mustDown(); len(again) != 0 {
		t.Errorf("down without up: %q", again)
	}
	same(t, "down without up", before, h.everything())
}

// The last IPv4 VIP takes the ARP settings with it.
func TestDownOfOneFamily(t *testing.T) {
	h, _ := newServer(t)
	before := h.everything()
	h.mustUp(Request{VIPs: []netip.Addr{vip6}})
	only6 := h.everything()
	h.mustUp(both)
	must(t, "down", h.with(nil, func(r *RealServer) error {
		_, err := r.Down([]netip.Addr{vip4}, false)
		return err
	}))
	same(t, "without IPv4", only6, h.everything())
	h.mustDown()
	same(t, "without both", before, h.everything())
}

var errInjected = errors.New("injected")

// failAt makes the step of that number fail, and none after it.
func failAt(step int) func(setter) setter {
	return func(set setter) setter {
		return func(s subject, value string) error {
			if step--; step == -1 {
				return errInjected
			}
			return set(s, value)
		}
	}
}

// killAt makes the step of that number and all after it fail, its undoing too, and
// calls killed before: what the files are then, a process that is killed leaves.
func killAt(step int, killed func()) func(setter) setter {
	return func(set setter) setter {
		return func(s subject, value string) error {
			if step--; step == -1 {
				killed()
			}
			if step < 0 {
				return errInjected
			}
			return set(s, value)
		}
	}
}

func TestFaultBetweenAnyTwoSteps(t *testing.T) {
	h, _ := newServer(t)
	// The default route leaves by another interface: rp_filter is a step too.
	other := newHost(t)
	h.join("eth1", other, "eth0")
	h.ip("address add 198.51.100.11/24 dev eth1")
	h.ip("route add default via 198.51.100.1")
	h.sysctl("net/ipv4/conf/eth0/rp_filter", "1")
	before := h.everything()
	const steps = 13 // 6 for ARP, rp_filter, 2 VIPs, 4 files
	for step := range steps {
		err := h.with(failAt(step), func(r *RealServer) error {
			_, err := r.Up(both, true)
			return err
		})
		if !errors.Is(err, errInjected) {
			t.Fatalf("step %d: %v, want the injected fault", step, err)
		}
		same(t, "up failed", before, h.everything())
	}
	must(t, "up", h.with(failAt(steps), func(r *RealServer) error {
		_, err := r.Up(both, true)
		return err
	}))
	if wrong := wrongOf(h.mustCheck(Request{})); len(wrong) != 0 {
		t.Errorf("wrong after up: %q", wrong)
	}
	up := h.everything()
	for step := range steps {
		err := h.with(failAt(step), func(r *RealServer) error {
			_, err := r.Down(nil, true)
			return err
		})
		if !errors.Is(err, errInjected) {
			t.Fatalf("step %d: %v, want the injected fault", step, err)
		}
		same(t, "down failed", addressesAside(up), addressesAside(h.everything()))
	}
	h.mustDown()
	same(t, "down", before, h.everything())
}

// addressesAside sorts the lines: an address that was taken away and brought back
// is the last of its interface.
func addressesAside(text string) string {
	lines := strings.Split(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// What was killed halfway, "down" undoes and "up" completes.
func TestKilledBetweenAnyTwoSteps(t *testing.T) {
	h, _ := newServer(t)
	before := h.everything()
	for step := range 8 {
		killed := func() {
			t.Helper()
			path := filepath.Join(h.config.RunDir, stateName)
			var state []byte
			var readErr error
			read := func() { state, readErr = os.ReadFile(path) }
			err := h.with(killAt(step, read), func(r *RealServer) error {
				_, err := r.Up(both, false)
				return err
			})
			if !errors.Is(err, errInjected) {
				t.Fatalf("step %d: %v, want the injected fault", step, err)
			}
			must(t, "read state", readErr)
			must(t, "write state", os.WriteFile(path, state, 0o644))
		}
		killed()
		h.mustDown()
		same(t, "killed, then down", before, h.everything())
		killed()
		h.mustUp(both)
		if wrong := wrongOf(h.mustCheck(Request{})); len(wrong) != 0 {
			t.Errorf("killed, then up: wrong: %q", wrong)
		}
		h.mustDown()
		same(t, "killed, then up and down", before, h.everything())
	}
}

// An administrator's own VIP on lo, from before, stays.
func TestVIPBeforeSysctls(t *testing.T) {
	h, _ := newServer(t)
	h.ip("address add 192.0.2.100/32 dev lo")
	before := h.everything()
	plan := h.mustUp(both)
	if len(plan.Exposed) != 1 || plan.Exposed[0].Address != vip4 {
		t.Errorf("exposed: %v, want %s", plan.Exposed, vip4)
	}
	if !strings.Contains(Recall(plan.Exposed[0]), "arping -U -c 3 -I eth0 192.0.2.100") {
		t.Errorf("recall: %q", Recall(plan.Exposed[0]))
	}
	if again := h.mustUp(both); len(again.Exposed) != 0 {
		t.Errorf("exposed the second time: %v", again.Exposed)
	}
	// Drift that is mended is not taken for what was there before.
	h.sysctl("net/ipv4/conf/all/arp_ignore", "8")
	h.mustUp(both)
	h.mustDown()
	same(t, "up and down", before, h.everything())
}

func TestObstacles(t *testing.T) {
	for _, test := range []struct {
		name, fault, mend string
		request           Request
	}{
		{"VIP on eth0", "ip address add 192.0.2.100/24 dev eth0", "ip address del 192.0.2.100/24 dev eth0", both},
		{"IPv6 VIP on eth0", "ip address add 2001:db8::100/64 dev eth0 nodad", "ip address del 2001:db8::100/64 dev eth0", both},
		{"network on lo", "ip address add 192.0.2.100/24 dev lo", "ip address del 192.0.2.100/24 dev lo", both},
		{"proxy", "ip neighbour add proxy 2001:db8::100 dev eth0", "ip neighbour del proxy 2001:db8::100 dev eth0", both},
		{"IPv6 off", "echo 1 >/proc/sys/net/ipv6/conf/lo/disable_ipv6", "sysctl -w net.ipv6.conf.lo.disable_ipv6=0", both},
		{"lo down", "ip link set lo down", "ip link set lo up", Request{VIPs: []netip.Addr{vip4}, Interface: "eth0"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h, _ := newServer(t)
			h.shell(test.fault)
			before := h.everything()
			_, err := h.up(test.request)
			if err == nil || !strings.Contains(err.Error(), "`"+test.mend+"`") {
				t.Fatalf("up: %v, want %q", err, test.mend)
			}
			same(t, "refused", before, h.everything())
			h.shell(test.mend)
			h.mustUp(test.request)
			if wrong := wrongOf(h.mustCheck(Request{})); len(wrong) != 0 {
				t.Errorf("wrong after mending: %q", wrong)
			}
		})
	}
	t.Run("no such interface", func(t *testing.T) {
		h, _ := newServer(t)
		before := h.everything()
		if _, err := h.up(Request{VIPs: []netip.Addr{vip4}, Interface: "eth7"}); err == nil || !strings.Contains(err.Error(), "eth7") {
			t.Errorf("up: %v", err)
		}
		same(t, "refused", before, h.everything())
	})
	t.Run("no route", func(t *testing.T) {
		h, _ := newServer(t)
		_, err := h.up(Request{VIPs: []netip.Addr{netip.MustParseAddr("203.0.113.1")}})
		if err == nil || !strings.Contains(err.Error(), "--interface") {
			t.Errorf("up: %v", err)
		}
	})
}

// A host that is a director too has the VIP on its interface while it is the active
// one: nothing is wrong with that, and it comes and goes without a trace.
func TestDirectorToo(t *testing.T) {
	h, _ := newServer(t)
	before := h.everything()
	director := both
	director.Director = true
	h.shell("ip address add 192.0.2.100/32 dev eth0 && ip address add 2001:db8::100/128 dev eth0 nodad")
	if wrong := wrongOf(h.mustCheck(both)); !slices.Contains(wrong, "192.0.2.100/32 on eth0") || !slices.Contains(wrong, "2001:db8::100/128 on eth0") {
		t.Errorf("not a director: wrong are %q", wrong)
	}
	h.mustUp(director)
	// It remembers that it is one.
	for _, request := range []Request{{}, both} {
		if wrong := wrongOf(h.mustCheck(request)); len(wrong) != 0 {
			t.Errorf("active: wrong are %q", wrong)
		}
	}
	h.shell("ip address del 192.0.2.100/32 dev eth0 && ip address del 2001:db8::100/128 dev eth0")
	if wrong := wrongOf(h.mustCheck(Request{})); len(wrong) != 0 {
		t.Errorf("no longer active: wrong are %q", wrong)
	}
	h.shell("ip address add 192.0.2.100/24 dev lo")
	if wrong := wrongOf(h.mustCheck(Request{})); !slices.Equal(wrong, []string{"192.0.2.100/24 on lo"}) {
		t.Errorf("a network on lo: wrong are %q", wrong)
	}
	h.shell("ip address del 192.0.2.100/24 dev lo")
	h.mustDown()
	same(t, "down", before, h.everything())
}

// Every command that check prints mends its point, and then nothing is wrong.
func TestMendingByHand(t *testing.T) {
	h, _ := newServer(t)
	for {
		points := h.mustCheck(both)
		i := slices.IndexFunc(points, func(p Point) bool { return !p.OK })
		if i < 0 {
			break
		}
		h.shell(points[i].Mend)
		eventually(t, time.Second, points[i].Mend+": mends "+points[i].Name, func() bool { return h.mustCheck(both)[i].OK })
	}
	for _, vip := range []string{"192.0.2.100", "2001:db8::100"} {
		h.ip("route del local " + vip + " dev lo table local")
	}
	points := h.mustCheck(both)
	if wrong := wrongOf(points); len(wrong) != 2 {
		t.Fatalf("without local routes: %q", wrong)
	}
	for _, p := range points {
		h.shell(p.Mend)
	}
	eventually(t, time.Second, "local routes come back", func() bool { return len(wrongOf(h.mustCheck(both))) == 0 })
	h.ip("rule add from all to 192.0.2.100 lookup main priority 1")
	h.ip("rule add from all lookup local priority 2")
	h.ip("rule del priority 0")
	shadow := h.mustCheck(both)
	if wrong := wrongOf(shadow); !slices.Equal(wrong, []string{"192.0.2.100/32 on lo"}) || len(changesOf(shadow)) != 0 {
		t.Errorf("a rule before the local table: %q, changes %v", wrong, changesOf(shadow))
	}
}

// The commands of a dry run do what up does, and dry-run itself nothing.
func TestScript(t *testing.T) {
	h, _ := newServer(t)
	other := newHost(t)
	h.join("eth1.7", other, "eth0")
	h.ip("address add 198.51.100.11/24 dev eth1.7")
	request := Request{VIPs: []netip.Addr{vip4, vip6, netip.MustParseAddr("198.51.100.100")}}
	before := h.everything()
	var script strings.Builder
	must(t, "dry run", h.with(nil, func(r *RealServer) error {
		plan, err := r.Plan(request, false)
		if err != nil {
			return err
		}
		return plan.WriteScript(&script)
	}))
	same(t, "dry run", before, h.everything())
	h.mustUp(request)
	up := strings.ReplaceAll(h.everything(), filepath.Join(h.config.RunDir, stateName)+"\n", "")
	h.mustDown()
	h.shell(script.String())
	eventually(t, time.Second, "the script takes effect", func() bool { return len(wrongOf(h.mustCheck(request))) == 0 })
	same(t, "script:\n"+script.String(), up, h.everything())
}

func TestDamagedState(t *testing.T) {
	h, _ := newServer(t)
	h.mustUp(both)
	path := filepath.Join(h.config.RunDir, stateName)
	good, err := os.ReadFile(path)
	must(t, "read state", err)
	for _, bad := range []string{
		"", "{", string(good[:len(good)/2]), "[]",
		strings.Replace(string(good), "net/ipv4/conf/all/arp_ignore", "net/ipv4/conf/../../../kernel/panic", 1),
		strings.Replace(string(good), "net/ipv4/conf/all/arp_ignore", "net/ipv4/ip_forward", 1),
		strings.Replace(string(good), "192.0.2.100/32", "192.0.2.0/24", 1),
		strings.Replace(string(good), `"value": "0"`, `"value": "0\n1"`, 1),
		strings.Replace(string(good), `"interface": "eth0"`, `"interface": "../x"`, 1),
		strings.Replace(string(good), `"boot"`, `"boots"`, 1),
	} {
		must(t, "damage state", os.WriteFile(path, []byte(bad), 0o644))
		before := h.everything()
		for _, do := range []func(*RealServer) error{
			func(r *RealServer) error { _, err := r.Up(both, false); return err },
			func(r *RealServer) error { _, err := r.Down(nil, false); return err },
			func(r *RealServer) error { _, err := r.Check(Request{}); return err },
			func(r *RealServer) error { return r.Run(t.Context(), Request{}) },
		} {
			if err := h.with(nil, do); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("%q: %v, want a refusal that names the file", bad, err)
			}
		}
		same(t, "refused", before, h.everything())
	}
}

func TestStateOfAnother(t *testing.T) {
	h, _ := newServer(t)
	before := h.everything()
	h.mustUp(both)
	path := filepath.Join(h.config.RunDir, stateName)
	good, err := os.ReadFile(path)
	must(t, "read state", err)

	other, _ := newServer(t)
	other.config.RunDir = h.config.RunDir
	if _, err := other.up(both); err == nil || !strings.Contains(err.Error(), "another network namespace") {
		t.Errorf("up in another namespace: %v", err)
	}

	// After a boot the kernel has forgotten it all, and so is it forgotten here.
	boot := strings.Index(string(good), `"boot": "`) + len(`"boot": "`)
	stale := string(good[:boot]) + "x" + string(good[boot+1:])
	must(t, "write state", os.WriteFile(path, []byte(stale), 0o644))
	if changes := h.mustDown(); len(changes) != 0 {
		t.Errorf("down after a boot: %q", changes)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the state of another boot stays: %v", err)
	}
	must(t, "write state", os.WriteFile(path, good, 0o644))
	h.mustDown()
	same(t, "up and down", before, h.everything())
}

func TestLock(t *testing.T) {
	h, _ := newServer(t)
	must(t, "make run directory", os.MkdirAll(h.config.RunDir, 0o755))
	held, err := takeLock(h.config.RunDir)
	must(t, "lock", err)
	defer held.release()
	if _, err := h.up(both); !errors.Is(err, ErrBusy) {
		t.Errorf("up beside another: %v", err)
	}
}

// The VIP comes after the settings that keep it to the host, and goes before them.
func TestOrder(t *testing.T) {
	h, _ := newServer(t)
	var kinds []kind
	record := func(set setter) setter {
		return func(s subject, value string) error {
			kinds = append(kinds, s.Kind)
			return set(s, value)
		}
	}
	must(t, "up", h.with(record, func(r *RealServer) error { _, err := r.Up(both, false); return err }))
	must(t, "down", h.with(record, func(r *RealServer) error { _, err := r.Down(nil, false); return err }))
	settings := slices.Repeat([]kind{kindSysctl}, 6)
	want := slices.Concat(settings, slices.Repeat([]kind{kindAddress}, 4), settings)
	if !slices.Equal(kinds, want) {
		t.Errorf("got %q, want %q", kinds, want)
	}
}

// Without privileges a change is refused in one line, and a check goes on.
func TestWithoutPrivileges(t *testing.T) {
	h, _ := newServer(t)
	before := h.everything()
	without := func(f func(*RealServer) error) error {
		return h.with(nil, func(r *RealServer) error { // on a thread that ends with it
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var sets [2]unix.CapUserData
			if err := unix.Capget(&header, &sets[0]); err != nil {
				return err
			}
			sets[0].Effective &^= 1 << unix.CAP_NET_ADMIN
			if err := unix.Capset(&header, &sets[0]); err != nil {
				return err
			}
			return f(r)
		})
	}
	for _, do := range []func(*RealServer) error{
		func(r *RealServer) error { _, err := r.Up(both, false); return err },
		func(r *RealServer) error { _, err := r.Down(nil, false); return err },
		func(r *RealServer) error { return r.Run(t.Context(), both) },
	} {
		if err := without(do); !errors.Is(err, unix.EPERM) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "root") {
			t.Errorf("got %v, want one line that says root", err)
		}
	}
	must(t, "check", without(func(r *RealServer) error { _, err := r.Check(both); return err }))
	same(t, "refused", before, h.everything())
}
