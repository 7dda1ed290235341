package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os/exec"
	"strings"

	"github.com/fairlead-lb/fairlead/internal/doctor"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A FaultReport is what came of a fault, for programs.
type FaultReport struct {
	Name string `json:"name"`
	// Shown says that real traffic went wrong.
	Shown  bool        `json:"shown"`
	Broken Observation `json:"broken"`
	// Found is all that the doctor found; FalseFindings is how many of it are not
	// the fault, or blame another host.
	Found         []doctor.Finding `json:"found"`
	FalseFindings int              `json:"false_findings"`
	// Mended says that after the doctor's commands traffic was right, and the
	// doctor found nothing more.
	Mended bool        `json:"mended"`
	After  Observation `json:"after"`
	// Left is what the doctor still found after its commands.
	Left []doctor.Finding `json:"left"`
}

// OK reports whether the fault was shown, found with nothing else, and mended.
func (r FaultReport) OK() bool {
	return r.Shown && len(r.Found) > 0 && r.FalseFindings == 0 && r.Mended
}

// Break makes the fault on a lab whose director has no service yet: it adds a
// service of the family, injects the fault, shows what becomes of real traffic, runs the
// doctor, runs the commands that it prints as they stand, and shows the traffic
// again. The error is for what could not be tried. Nobody else may use the lab
// meanwhile, to which some faults add an interface; it wants the lab of [Fault.With].
func (l *Lab) Break(ctx context.Context, fault Fault, family Family, progress func(string)) (FaultReport, error) {
	report := FaultReport{Name: fault.Name}
	service := netip.AddrPortFrom(family.VIP(), HTTPPort)
	options := Options{Scheduler: lvs.RoundRobin, Family: family}
	for range l.Servers() {
		options.Weights = append(options.Weights, 1)
	}
	if err := l.AddService(ctx, "-t", service, options); err != nil {
		return report, err
	}
	watch := faultWatch{lab: l, fault: fault, family: family, service: service, ports: portWalk{client: l.hosts[0]}}
	if whole, err := watch.until(ctx, isWell); err != nil || !isWell(whole) {
		return report, errors.Join(fmt.Errorf("the network is not right before the fault: %s", whole), err)
	}
	progress("making the fault: " + fault.About)
	if err := fault.inject(ctx, l, family); err != nil {
		return report, fmt.Errorf("make fault %s: %w", fault.Name, err)
	}
	progress("watching what becomes of requests")
	var err error
	if report.Broken, err = watch.until(ctx, isHarmed); err != nil {
		return report, err
	}
	report.Shown = isHarmed(report.Broken)
	progress("asking the doctor")
	if report.Found, err = l.Diagnose(ctx); err != nil {
		return report, err
	}
	for _, f := range report.Found {
		if host, known := l.hostOf(f.Host); !known || f.Check != fault.check || host != fault.culprit(l) {
			report.FalseFindings++
		}
	}
	if err := l.mend(ctx, report.Found, progress); err != nil {
		return report, err
	}
	progress("watching requests again")
	if report.After, err = watch.until(ctx, isWell); err != nil {
		return report, err
	}
	report.Left, err = l.Diagnose(ctx)
	report.Mended = isWell(report.After) && len(report.Left) == 0
	return report, err
}

// Diagnose runs the doctor on the director.
func (l *Lab) Diagnose(ctx context.Context) ([]doctor.Finding, error) {
	text, err := l.Output(ctx, Director, "fairlead", "doctor", "-o", "json")
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() > int(doctor.Error)) {
		return nil, err
	}
	var diagnosis struct {
		Findings []doctor.Finding `json:"findings"`
	}
	if err := json.Unmarshal([]byte(text), &diagnosis); err != nil {
		return nil, fmt.Errorf("read the doctor's findings: %w", err)
	}
	return diagnosis.Findings, nil
}

// mend runs the doctor's commands as they stand.
func (l *Lab) mend(ctx context.Context, findings []doctor.Finding, progress func(string)) error {
	for _, f := range findings {
		for _, remedy := range f.Mend {
			host, ok := l.hostOf(remedy.Host)
			if !ok {
				return fmt.Errorf("mend %s: the doctor names %s, which is no host of the lab", f.Check, remedy.Host)
			}
			progress(fmt.Sprintf("mending on %s: %s", host, remedy.Command))
			if err := l.onHost(ctx, host, remedy.Command); err != nil {
				return fmt.Errorf("mend %s: %w", f.Check, err)
			}
		}
	}
	return nil
}

// hostOf returns the name of the host that the doctor means.
func (l *Lab) hostOf(found doctor.Host) (string, bool) {
	for _, p := range l.ports {
		known := found.Address == p.Address(IPv4) || found.Address == p.Address(IPv6)
		if p.MAC.String() == found.MAC || found.MAC == "" && known {
			return p.Name, true
		}
	}
	return "", false
}

// WriteText writes the report for people.
func (r FaultReport) WriteText(w io.Writer) error {
	var text strings.Builder
	fmt.Fprintf(&text, "Fault %s\n\nBroken:  %s\n", r.Name, strings.Join(r.Broken.lines(), "\n         "))
	for _, f := range r.Found {
		fmt.Fprintf(&text, "\nThe doctor found %s:\n  %s\n  %s\n", f.Check, f.What, f.Why)
		for _, remedy := range f.Mend {
			fmt.Fprintf(&text, "  mended on %s:\n    %s\n", remedy.Host, remedy.Command)
		}
	}
	if len(r.Found) == 0 {
		fmt.Fprint(&text, "\nThe doctor found nothing\n")
	}
	fmt.Fprintf(&text, "\nAfter:   %s\n", strings.Join(r.After.lines(), "\n         "))
	for _, f := range r.Left {
		fmt.Fprintf(&text, "\nThe doctor still finds %s:\n  %s\n", f.Check, f.What)
	}
	_, err := io.WriteString(w, text.String())
	return err
}
