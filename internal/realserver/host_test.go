package realserver

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// A host is a network namespace that ends with its test.
type host struct {
	testhost.Namespace
	t      *testing.T
	config Config
}

// newHost returns a namespace with lo up, and with its own run and root directories.
func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{Namespace: testhost.NewNamespace(t), t: t, config: Config{
		RunDir:     filepath.Join(t.TempDir(), "run"),
		Root:       t.TempDir(),
		Executable: "/usr/bin/fairlead",
		Log:        slog.New(slog.DiscardHandler),
	}}
	// Else IPv6 is silent for a second or two after an interface comes up.
	h.sysctl("net/ipv6/conf/default/accept_dad", "0")
	h.sysctl("net/ipv6/conf/default/dad_transmits", "0")
	h.sysctl("net/ipv6/conf/default/router_solicitations", "0")
	h.ip("link set lo up")
	return h
}

// newServer returns a host with eth0, and who is at the other end of the wire.
func newServer(t *testing.T) (server, peer *host) {
	t.Helper()
	server, peer = newHost(t), newHost(t)
	server.join("eth0", peer, "eth0")
	server.ip("address add 192.0.2.11/24 dev eth0")
	server.ip("-6 address add 2001:db8::11/64 dev eth0 nodad")
	peer.ip("address add 192.0.2.10/24 dev eth0")
	peer.ip("-6 address add 2001:db8::10/64 dev eth0 nodad")
	return server, peer
}

// join makes a veth pair and waits until both ends are ready.
func (h *host) join(name string, peer *host, peerName string) {
	h.t.Helper()
	h.do(func() error {
		attributes := netlink.NewLinkAttrs()
		attributes.Name = name
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attributes, PeerName: peerName, PeerNamespace: netlink.NsFd(peer.NsHandle)})
	})
	h.ip("link set " + name + " up")
	peer.ip("link set " + peerName + " up")
	eventually(h.t, 5*time.Second, "link-local addresses", func() bool {
		return h.ready(name) && peer.ready(peerName)
	})
}

// ready reports whether the kernel has done all that it does after an interface
// came up.
func (h *host) ready(name string) bool {
	shown := h.ip("-6 address show dev " + name + " scope link -tentative")
	routes := h.ip("-6 route show table all dev " + name)
	return strings.Contains(shown, "fe80::") && strings.Contains(routes, "ff00::/8") &&
		strings.Contains(h.ip("link show dev "+name), "state UP")
}

// do calls f on a thread in the namespace.
func (h *host) do(f func() error) {
	h.t.Helper()
	must(h.t, "work in network namespace", h.Do(f))
}

// shell runs a command line in the namespace and returns what it prints.
func (h *host) shell(line string) string {
	h.t.Helper()
	var out []byte
	err := h.Do(func() (err error) {
		out, err = exec.Command("sh", "-e", "-c", line).CombinedOutput()
		return err
	})
	if err != nil {
		h.t.Fatalf("%s: %v: %s", line, err, out)
	}
	return string(out)
}

func (h *host) ip(args string) string {
	h.t.Helper()
	return h.shell("ip " + args)
}

func (h *host) sysctl(name, value string) {
	h.t.Helper()
	h.do(func() error { return writeSysctl(name, value) })
}

// with calls f with the real server of this namespace, whose setter wrap may
// replace.
func (h *host) with(wrap func(setter) setter, f func(*RealServer) error) error {
	return h.Do(func() error {
		r, err := Open(h.config)
		if err != nil {
			return err
		}
		defer r.Close()
		if wrap != nil {
			r.set = wrap(r.set)
		}
		return f(r)
	})
}

func (h *host) up(request Request) (plan *Plan, err error) {
	err = h.with(nil, func(r *RealServer) (err error) {
		plan, err = r.Up(request, false)
		return err
	})
	return plan, err
}

func (h *host) mustUp(request Request) *Plan {
	h.t.Helper()
	plan, err := h.up(request)
	must(h.t, "up", err)
	return plan
}

func (h *host) mustDown() []string {
	h.t.Helper()
	var changes []string
	must(h.t, "down", h.with(nil, func(r *RealServer) (err error) {
		changes, err = r.Down(nil, true)
		return err
	}))
	return changes
}

func (h *host) mustCheck(request Request) []Point {
	h.t.Helper()
	var points []Point
	must(h.t, "check", h.with(nil, func(r *RealServer) (err error) {
		points, err = r.Check(request)
		return err
	}))
	return points
}

// everything returns all sysctls of interfaces, all addresses, routes, rules and
// proxied neighbours, and the files below the run and root directories.
func (h *host) everything() string {
	h.t.Helper()
	var text strings.Builder
	h.do(func() error {
		for _, pattern := range []string{"/proc/sys/net/ipv4/conf/*/*", "/proc/sys/net/ipv6/conf/*/*"} {
			names, err := filepath.Glob(pattern)
			if err != nil || len(names) < 30 {
				return errors.Join(err, fmt.Errorf("%s: %d sysctls", pattern, len(names)))
			}
			for _, name := range names {
				value, err := os.ReadFile(name)
				fmt.Fprintf(&text, "%s %q %v\n", name, value, err)
			}
		}
		return nil
	})
	for _, what := range []string{"-d address show", "route show table all", "-6 route show table all",
		"rule show", "-6 rule show", "neighbour show proxy", "-6 neighbour show proxy"} {
		text.WriteString(h.ip(what))
	}
	for _, directory := range []string{h.config.RunDir, h.config.Root} {
		must(h.t, "walk "+directory, filepath.WalkDir(directory, func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				fmt.Fprintln(&text, path)
			}
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			return err
		}))
	}
	return text.String()
}

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// eventually asks for a condition every few milliseconds until it holds.
func eventually(t *testing.T, limit time.Duration, what string, condition func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(limit); !condition(); <-ticker.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not after %s", what, limit)
		}
	}
}
