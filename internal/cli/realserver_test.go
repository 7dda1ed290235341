package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// A check that cannot tell is not one that found a fault.
func TestRealserverCheckCannotTell(t *testing.T) {
	for _, test := range []struct{ args, says string }{
		{"", "--vip"},
		{"--vip nonsense", "nonsense"},
		{"--vip 127.0.0.1", "127.0.0.1"},
		{"--vip 192.0.2.100 --interface lo", "goes to lo by itself"},
		{"--nosuch", "fairlead realserver check --help"},
		{"-o yaml", "text or json"},
		{"nosuch", "nosuch"},
	} {
		args := append([]string{"realserver", "check"}, strings.Fields(test.args)...)
		status, stdout, stderr := run(t, "", args...)
		if status != statusCannotTell || stdout != "" || !strings.Contains(stderr, test.says) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: status %d, %q, %q, want 2 and one line that says %q", args, status, stdout, stderr, test.says)
		}
	}
}

// newNamespace moves the test to a thread in a network namespace with lo and eth0.
func newNamespace(t *testing.T) {
	t.Helper()
	testhost.EnterNamespace(t)
	attributes := netlink.NewLinkAttrs()
	attributes.Name = "eth0"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attributes, PeerName: "peer0"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"lo", "eth0", "peer0"} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetUp(link); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRealserver(t *testing.T) {
	newNamespace(t)
	runDir := t.TempDir()
	realserver := func(want int, args ...string) (stdout, stderr string) {
		t.Helper()
		var out, errs bytes.Buffer
		env := Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" }}
		if got := Main(context.Background(), env, append([]string{"realserver", "--run-dir", runDir}, args...)); got != want {
			t.Errorf("%q: status %d, want %d: %s%s", args, got, want, out.String(), errs.String())
		}
		return out.String(), errs.String()
	}
	vip := []string{"--vip", "192.0.2.100", "--interface", "eth0"}
	script, _ := realserver(0, append([]string{"up", "--dry-run"}, vip...)...)
	if !strings.HasSuffix(script, "ip address add 192.0.2.100/32 dev lo scope host\n") || strings.Count(script, "\nsysctl -w ") != 6 {
		t.Errorf("dry run:\n%s", script)
	}
	if text, _ := realserver(statusWrong, append([]string{"check"}, vip...)...); !strings.Contains(text, "\n  sysctl -w net.ipv4.conf.eth0.arp_ignore=1\n") {
		t.Errorf("check before up:\n%s", text)
	}
	realserver(0, append([]string{"up"}, vip...)...)
	if again, _ := realserver(0, append([]string{"up"}, vip...)...); !strings.HasPrefix(again, "nothing to do") {
		t.Errorf("up twice: %q", again)
	}
	if text, _ := realserver(0, "check"); strings.Contains(text, "wrong") || strings.Count(text, "\n") != 7 {
		t.Errorf("check after up:\n%s", text)
	}
	forget := func(scope string) {
		t.Helper()
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+scope+"/arp_announce", []byte("0"), 0); err != nil {
			t.Fatal(err)
		}
	}
	forget("all")
	text, _ := realserver(statusWrong, "check", "-o", "json")
	var checked struct {
		OK     bool
		Points []struct {
			OK         bool
			Name, Mend string
		}
	}
	if err := json.Unmarshal([]byte(text), &checked); err != nil || checked.OK || len(checked.Points) != 7 {
		t.Errorf("check -o json: %v:\n%s", err, text)
	}
	for _, p := range checked.Points {
		if p.OK != (p.Name != "net.ipv4.conf.all.arp_announce") || p.OK != (p.Mend == "") {
			t.Errorf("check -o json: %+v", p)
		}
	}
	forget("eth0")
	if _, warned := realserver(0, append([]string{"up"}, vip...)...); !strings.Contains(warned, "arping -U -c 3 -I eth0 192.0.2.100") {
		t.Errorf("up after ARP has told: %q", warned)
	}
	realserver(0, "down")
	if again, _ := realserver(0, "down"); again != "nothing to undo\n" {
		t.Errorf("down twice: %q", again)
	}
}
