package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-lb/fairlead/internal/doctor"
	"github.com/fairlead-lb/fairlead/internal/lab"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// diagnose runs the doctor on the director, and returns its findings and its exit
// status.
func diagnose(t *testing.T, l *lab.Lab) ([]doctor.Finding, int) {
	t.Helper()
	cmd, err := l.Command(t.Context(), lab.Director, "fairlead", "doctor", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := l.Begin(lab.Director, cmd); err != nil {
		t.Fatal(err)
	}
	status := exitStatus(t, cmd.Wait())
	var report struct {
		Level    doctor.Level     `json:"level"`
		Findings []doctor.Finding `json:"findings"`
	}
	if err := json.Unmarshal([]byte(stdout.String()), &report); err != nil {
		t.Fatalf("status %d: %v\n%s%s", status, err, &stdout, &stderr)
	}
	if int(report.Level) != status {
		t.Errorf("level %s and exit status %d", report.Level, status)
	}
	return report.Findings, status
}

// A healthy network has nothing that the doctor finds, and its visits cost no
// client a connection.
func TestDoctorRaisesNoFalseAlarm(t *testing.T) {
	t.Parallel()
	l := mustUp(t, labDirectory(t), "healthy")
	web := service(lab.IPv4, lab.HTTPPort)
	mustAddService(t, l, "-t", web, lvs.RoundRobin)
	mustAddService(t, l, "-t", service(lab.IPv6, lab.HTTPPort), lvs.RoundRobin)
	mustAddService(t, l, "-u", service(lab.IPv4, lab.EchoPort), lvs.RoundRobin)

	stop, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(failed)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := l.Get(t.Context(), web); err != nil {
				failed <- err
				return
			}
		}
	}()
	for i := range 20 {
		if findings, status := diagnose(t, l); len(findings) > 0 || status != 0 {
			t.Fatalf("visit %d: status %d, %+v", i+1, status, findings)
		}
	}
	close(stop)
	if err := <-failed; err != nil {
		t.Errorf("a request during the visits: %v", err)
	}
}

// Whoever the doctor can't reach, it says so with a status of its own.
func TestDoctorWithoutDirector(t *testing.T) {
	c := newCommand(t, t.TempDir(), "doctor", "--run-dir", t.TempDir())
	if status := exitStatus(t, c.Run()); status != 3 || strings.Count(c.stderr.String(), "\n") != 1 {
		t.Errorf("status %d, want 3 and one line: %s", status, &c.stderr)
	}
	c = newCommand(t, t.TempDir(), "doctor", "announce", "192.0.2.100")
	if status := exitStatus(t, c.Run()); status != 1 || !strings.Contains(c.stderr.String(), "run this on the director") {
		t.Errorf("announced an address that the host has not: status %d: %s", status, &c.stderr)
	}
}

// What else than the faults of the lab the doctor names, and whom.
func TestDoctorNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	l := mustUp(t, labDirectory(t), "ill")
	mustAddService(t, l, "-t", service(lab.IPv4, lab.HTTPPort), lvs.RoundRobin)
	mustAddService(t, l, "-t", service(lab.IPv6, lab.HTTPPort), lvs.RoundRobin)
	shell := func(host, command string) func() {
		return func() { mustOutput(t, l, host, "sh", "-c", command) }
	}
	for _, test := range []struct {
		name   string
		do     func()
		undo   func() // nil: the doctor's first command on rs2
		host   string // by address
		checks []string
	}{{
		name:   "no program on the VIP",
		do:     func() { mustDo(t, l.Kill(t.Context(), "rs1")) },
		undo:   func() { mustDo(t, l.Start(t.Context(), "rs1")) },
		host:   "192.0.2.11 2001:db8::11",
		checks: []string{doctor.Refused, doctor.Refused},
	}, {
		name:   "no VIP of IPv6",
		do:     shell("rs2", "ip address del 2001:db8::100/128 dev lo"),
		undo:   shell("rs2", "fairlead realserver up --vip 2001:db8::100"),
		host:   "2001:db8::12",
		checks: []string{doctor.NoVIP},
	}, {
		name:   "a VIP of IPv6 where neighbours see it",
		do:     shell("rs2", "ip address add 2001:db8::100/128 dev eth0 nodad"),
		host:   "2001:db8::12",
		checks: []string{doctor.VIPExposed},
	}, {
		name:   "a director without its VIP",
		do:     shell("director", "ip address del 192.0.2.100/32 dev eth0"),
		undo:   shell("director", "ip address add 192.0.2.100/32 dev eth0"),
		host:   "192.0.2.10",
		checks: []string{doctor.VIPMissing},
	}, {
		name:   "two hosts of one address",
		do:     shell("client", "ip address add 192.0.2.12/32 dev eth0"),
		undo:   shell("client", "ip address del 192.0.2.12/32 dev eth0"),
		host:   "192.0.2.12",
		checks: []string{doctor.SameAddress},
	}, {
		name: "a host that is no real server any more",
		do: func() {
			shell("director", "ipvsadm -d -t 192.0.2.100:80 -r 192.0.2.12:80")()
			shell("rs2", "sysctl -qw net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.eth0.arp_ignore=0")()
		},
		undo:   shell("rs2", "fairlead realserver up --vip 192.0.2.100"),
		host:   "192.0.2.12 2001:db8::12", // whichever the director still knows
		checks: []string{doctor.ForeignVIP},
	}} {
		t.Run(test.name, func(t *testing.T) {
			test.do()
			findings, status := diagnose(t, l)
			switch {
			case test.undo != nil:
				test.undo()
			case len(findings) > 0:
				shell("rs2", findings[0].Mend[0].Command)()
			}
			var checks []string
			for _, f := range findings {
				checks = append(checks, f.Check)
				if !strings.Contains(" "+test.host+" ", " "+f.Host.Address.String()+" ") || len(f.Mend) == 0 || f.Why == "" {
					t.Errorf("want a finding of %s: %+v", test.host, f)
				}
			}
			if !slices.Equal(checks, test.checks) || status != int(doctor.Error) {
				t.Errorf("status %d, found %v, want %v: %+v", status, checks, test.checks, findings)
			}
		})
	}
}

// A real server that is gone has no next hop, and the director says why.
func TestDoctorNamesServerThatIsGone(t *testing.T) {
	t.Parallel()
	l := mustUp(t, labDirectory(t), "gone")
	mustAddService(t, l, "-t", service(lab.IPv4, lab.HTTPPort), lvs.RoundRobin)
	mustOutput(t, l, "rs1", "ip", "link", "set", "eth0", "down")
	var findings []doctor.Finding
	eventually(t, time.Minute, "the doctor misses the next hop", func() bool {
		findings, _ = diagnose(t, l)
		return len(findings) == 1 && findings[0].Check == doctor.NoNextHop
	})
	if got := findings[0].Host.Address.String(); got != "192.0.2.11" {
		t.Errorf("found %s: %+v", got, findings)
	}
}

// What there is of UDP and of IPv6: silence proves nothing, a refusal does.
func TestDoctorNamesWhatIsWrongWithUDPAndIPv6(t *testing.T) {
	t.Parallel()
	l := mustUp(t, labDirectory(t), "silent")
	web := service(lab.IPv6, lab.HTTPPort)
	mustAddService(t, l, "-u", service(lab.IPv4, lab.EchoPort), lvs.RoundRobin)
	mustAddService(t, l, "-t", web, lvs.RoundRobin)
	shell := func(host, command string) func() {
		return func() { mustOutput(t, l, host, "sh", "-c", command) }
	}
	// Director and client know each other.
	if _, err := l.Get(t.Context(), web); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		do    func()
		undo  func() // nil: the doctor's first command on the director
		found string // "level check address", "; " between them
	}{{
		name:  "no VIP behind a UDP service",
		do:    shell("rs2", "ip address del 192.0.2.100/32 dev lo"),
		undo:  shell("rs2", "fairlead realserver up --vip 192.0.2.100"),
		found: "error no-vip 192.0.2.12",
	}, {
		name:  "a real server that answers nothing",
		do:    shell("rs2", "ip address del 192.0.2.100/32 dev lo; sysctl -qw net.ipv4.icmp_echo_ignore_all=1"),
		undo:  shell("rs2", "fairlead realserver up --vip 192.0.2.100; sysctl -qw net.ipv4.icmp_echo_ignore_all=0"),
		found: "healthy unproved 192.0.2.12",
	}, {
		name:  "a real server that has the VIP, and answers no echo request",
		do:    shell("rs2", "sysctl -qw net.ipv4.icmp_echo_ignore_all=1"),
		undo:  shell("rs2", "sysctl -qw net.ipv4.icmp_echo_ignore_all=0"),
		found: "",
	}, {
		name:  "no program on the UDP port",
		do:    func() { mustDo(t, l.Kill(t.Context(), "rs1")) },
		undo:  func() { mustDo(t, l.Start(t.Context(), "rs1")) },
		found: "error service-closed 192.0.2.11; error service-closed 2001:db8::11",
	}, {
		name:  "a client with a wrong MAC address for a VIP of IPv6",
		do:    shell("client", "ip neighbour replace 2001:db8::100 lladdr 02:00:00:00:00:11 dev eth0 nud reachable"),
		found: "error stale-arp 2001:db8::1",
	}, {
		name: "no way back to a client",
		do: func() {
			shell("rs1", "ip route add blackhole 2001:db8::1")()
			eventually(t, 20*time.Second, "a client waits in vain", func() bool {
				ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
				defer cancel()
				_, err := l.Get(ctx, web)
				return err != nil
			})
		},
		undo:  shell("rs1", "ip route del blackhole 2001:db8::1"),
		found: "error no-way-back 2001:db8::11",
	}} {
		t.Run(test.name, func(t *testing.T) {
			test.do()
			findings, status := diagnose(t, l)
			switch {
			case test.undo != nil:
				test.undo()
			case len(findings) > 0:
				shell(lab.Director, findings[0].Mend[0].Command)()
			}
			var found []string
			for _, f := range findings {
				found = append(found, fmt.Sprintf("%s %s %s", f.Level, f.Check, f.Host.Address))
			}
			if got := strings.Join(found, "; "); got != test.found || status != int(doctor.Worst(findings)) {
				t.Errorf("status %d, found %q, want %q: %+v", status, got, test.found, findings)
			}
			if left, status := diagnose(t, l); status != 0 {
				t.Errorf("afterwards: %+v", left)
			}
		})
	}
}

func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
