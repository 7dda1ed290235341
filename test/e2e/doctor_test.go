package e2e

import (
	"encoding/json"
	"strings"
	"testing"

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
