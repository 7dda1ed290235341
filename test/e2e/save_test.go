package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lab"
)

// What one director saves, another restores: it then saves the same, and lists the
// same. A bad line changes nothing of that.
func TestSaveAndRestore(t *testing.T) {
	directory := labDirectory(t)
	first, second := mustUp(t, directory, "saves"), mustUp(t, directory, "restores")
	on := func(l *lab.Lab, line string) string {
		words := strings.Fields(line)
		return mustOutput(t, l, lab.Director, words[0], words[1:]...)
	}
	for _, line := range []string{
		"ipvsadm -A -t 192.0.2.100:80 -s sh -b sh-port,sh-fallback",
		"ipvsadm -a -t 192.0.2.100:80 -r 192.0.2.11:80 -g -w 4 -x 1000 -y 800",
		"ipvsadm -a -t 192.0.2.100:80 -r 192.0.2.12:80 -g -w 0",
		"ipvsadm -A -u [2001:db8::100]:53 -s rr",
		"ipvsadm -a -u [2001:db8::100]:53 -r [2001:db8::11]:53 -g",
		"ipvsadm -A -f 7 -s rr -p 60 -M 255.255.255.0",
		"ipvsadm -A -u 192.0.2.100:53 -s rr -o",
		"ipvsadm -A --sctp-service 192.0.2.100:2905 -s mh",
		"ipvsadm --set 3600 0 30",
		"fairlead sysctl conn_reuse_mode=0 sloppy_tcp=1",
		"fairlead sysctl --service tcp:192.0.2.100:80 timeout_synrecv=10 slow_start=30",
		"fairlead peer add 192.0.2.12",
	} {
		on(first, line)
	}
	marked := filepath.Join(t.TempDir(), "marked")
	const marks = "mark 7 protocol tcp destination 192.0.2.100/32 destination-ports 6000-6100\nmark 8 source 2001:db8::/32\n"
	text := strings.Replace(on(first, "fairlead save"), "service ", marks+"service ", 1)
	if err := os.WriteFile(marked, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := on(first, "fairlead restore "+marked); out != "set 2 mark rules, of 0\nrestored: 1 change\n" {
		t.Errorf("marks: %s", out)
	}
	saved := on(first, "fairlead save")
	if diff := cmp.Diff(text, saved); diff != "" {
		t.Errorf("-restored +saved:\n%s", diff)
	}
	for _, want := range []string{
		"fairlead-save 1\n", "sysctl timeout_established=3600\n", "sysctl timeout_udp=30\n", "sysctl conn_reuse_mode=0\n",
		"peer 192.0.2.12\n", "scheduler sh flags sh-fallback,sh-port\n", "  set timeout_synrecv=10\n", "  set slow_start=30\n",
		"  server 192.0.2.12:80 route weight 0\n  server 192.0.2.11:80 route weight 4 upper 1000 lower 800\n",
		"service udp:[2001:db8::100]:53 scheduler rr\n", "service sctp:192.0.2.100:2905 scheduler mh\n",
	} {
		if !strings.Contains(saved, want) {
			t.Errorf("saved without %q:\n%s", want, saved)
		}
	}
	for name, text := range map[string]string{"text": saved, "json": on(first, "fairlead save -o json")} {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out := on(second, "fairlead restore --dry-run "+file); on(second, "ipvsadm -Sn") != "" {
			t.Errorf("a dry run changed something:\n%s", out)
		}
		on(second, "fairlead restore "+file)
		for _, line := range []string{"fairlead save", "ipvsadm -Sn", "ipvsadm -Ln", "ipvsadm -Ln --thresholds", "ipvsadm -L --timeout", "fairlead sysctl"} {
			if diff := cmp.Diff(on(first, line), on(second, line)); diff != "" {
				t.Errorf("%s, %s (-saved +restored):\n%s", name, line, diff)
			}
		}
		if out := on(second, "fairlead restore "+file); out != "restored: 0 changes\n" {
			t.Errorf("restored again: %s", out)
		}
		on(second, "ipvsadm -C")
	}

	bad := filepath.Join(t.TempDir(), "bad")
	text = strings.Replace(saved, "server 192.0.2.11:80", "server 192.0.2.11:81", 1)
	if err := os.WriteFile(bad, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	line := 1 + strings.Count(text[:strings.Index(text, "192.0.2.11:81")], "\n")
	before := on(first, "fairlead save")
	cmd, err := first.Command(t.Context(), lab.Director, "fairlead", "restore", bad)
	if err != nil {
		t.Fatal(err)
	}
	told, err := cmd.CombinedOutput()
	if want := ": line " + strconv.Itoa(line) + ": real server 192.0.2.11:81 of TCP 192.0.2.100:80: port 81"; err == nil || !strings.Contains(string(told), want) {
		t.Errorf("%v, got %q, want %q", err, told, want)
	}
	if diff := cmp.Diff(before, on(first, "fairlead save")); diff != "" {
		t.Errorf("a bad line changed something:\n%s", diff)
	}
}
