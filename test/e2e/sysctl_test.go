package e2e

import (
	"encoding/json"
	"strings"
	"testing"
)

// Values are set and read, of the director and of a service; they survive the
// director, and what is refused changes nothing.
func TestSysctl(t *testing.T) {
	directory := labDirectory(t)
	mustRun(t, directory, "lab", "up")
	defer mustRun(t, directory, "lab", "down")
	director := func(command string) []string {
		return append(strings.Fields("lab exec director"), strings.Fields(command)...)
	}
	sysctl := func(args string) string {
		t.Helper()
		return mustRun(t, directory, director("fairlead sysctl "+args)...)
	}
	want := func(args, output string) {
		t.Helper()
		if got := sysctl(args); got != output {
			t.Errorf("fairlead sysctl %s printed %q, want %q", args, got, output)
		}
	}
	mustRun(t, directory, director("ipvsadm -A -t 192.0.2.100:80 -s wlc")...)

	want("conn_reuse_mode", "conn_reuse_mode = 1\n")
	want("net.ipv4.vs.sloppy_tcp=1 timeout_synrecv=30", "sloppy_tcp = 1\ntimeout_synrecv = 30\n")
	want("--service tcp:192.0.2.100:80 timeout_established=3600", "timeout_established = 3600\n")
	mustRun(t, directory, director("ipvsadm --set 1000 0 0")...)
	want("timeout_established", "timeout_established = 1000\n")

	for _, refused := range []struct{ args, says string }{
		{"sloppy_tcp=0 drop_entry=4", "want 0 to 3"},
		{"sloppy_tcp=0 sync_ports=2", "sync daemon"},
		{"sloppy_tcp=0 nosuch=1", "nosuch"},
		{"sloppy_tcp=0 sloppy_tcp=1", "given twice"},
		{"sloppy_tcp=0 drop_entry", "can't be mixed"},
		{"timeout_udp=0", "want 1 to 2678400"},
		{"--service tcp:192.0.2.100:80 sloppy_tcp=0 amemthresh=1", "no service has its own"},
		{"--service tcp:192.0.2.100:81 sloppy_tcp=0", "no such service"},
		{"--service http sloppy_tcp=0", "want one like"},
	} {
		c := newCommand(t, directory, director("fairlead sysctl "+refused.args)...)
		if status := exitStatus(t, c.Run()); status != 1 || !strings.Contains(c.stderr.String(), refused.says) ||
			strings.Count(c.stderr.String(), "\n") != 1 || c.stdout.Len() != 0 {
			t.Errorf("fairlead sysctl %s: exit status %d, %q, %q; want one line with %q", refused.args, status, &c.stdout, &c.stderr, refused.says)
		}
	}

	mustRun(t, directory, "lab", "kill", "director")
	mustRun(t, directory, "lab", "start", "director")
	want("sloppy_tcp timeout_synrecv timeout_established", "sloppy_tcp = 1\ntimeout_synrecv = 30\ntimeout_established = 1000\n")
	want("--service tcp:192.0.2.100:80 timeout_established timeout_synrecv", "timeout_established = 3600\ntimeout_synrecv = 30\n")

	listing := sysctl("")
	for _, column := range []string{"NAME", "VALUE", "DEFAULT", "MEANING", "drop_packet", "timeout_sctp_established", "backup_only"} {
		if !strings.Contains(listing, column) {
			t.Errorf("fairlead sysctl has no %s:\n%s", column, listing)
		}
	}
	var report struct {
		Service string
		Sysctls []struct {
			Name, Of string
			Value    int
		}
	}
	if err := json.Unmarshal([]byte(sysctl("--service tcp:192.0.2.100:80 timeout_established=default -o json")), &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Sysctls) != 1 || report.Service != "TCP 192.0.2.100:80" || report.Sysctls[0].Of != "director" || report.Sysctls[0].Value != 1000 {
		t.Errorf("JSON after the service gave its value up: %+v", report)
	}
}
