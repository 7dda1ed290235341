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
	"time"

	"github.com/fairlead-lb/fairlead/internal/doctor"
	"github.com/fairlead-lb/fairlead/internal/journey"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

const (
	// faultTimeout bounds how long traffic is watched for a fault to show, or to
	// be gone.
	faultTimeout = 20 * time.Second
	// faultPatience is how long a request may take before it counts as failed: as
	// long as a client's kernel waits until it sends a SYN again, and more.
	faultPatience = 1500 * time.Millisecond
	// enoughHarm is how many requests must go wrong, and enoughGood how many in a
	// row must go right.
	enoughHarm = 3
	enoughGood = 20
)

// An Observation is what became of requests, seen on the client's wire.
type Observation struct {
	Sent     int `json:"sent"`
	Answered int `json:"answered"`
	// SentTo counts the SYNs that left the client, by the host whose MAC address
	// they went to: all are the director's when all is well.
	SentTo map[string]int `json:"sent_to"`
	// Claimed counts who told a MAC address for the VIP.
	Claimed map[string]int `json:"claimed"`
	// Learnt is the host whose MAC address the client has for the VIP in the end.
	Learnt string `json:"learnt"`
}

// bypassed returns how many SYNs went to another host than the director.
func (o Observation) bypassed() int {
	n := 0
	for host, count := range o.SentTo {
		if host != Director {
			n += count
		}
	}
	return n
}

// harm returns how many requests went wrong.
func (o Observation) harm() int { return o.Sent - o.Answered + o.bypassed() }

// String tells the observation in one line.
func (o Observation) String() string {
	learnt := o.Learnt
	if learnt == "" {
		learnt = "nobody"
	}
	return fmt.Sprintf("%d of %d requests answered; the client's SYNs went to: %s; who claimed the VIP: %s; the client holds it to be at: %s",
		o.Answered, o.Sent, orNone(o.SentTo), orNone(o.Claimed), learnt)
}

func orNone(counts map[string]int) string {
	if len(counts) == 0 {
		return "nobody"
	}
	return listCounts(counts)
}

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
}

// OK reports whether the fault was shown, found with nothing else, and mended.
func (r FaultReport) OK() bool {
	return r.Shown && len(r.Found) > 0 && r.FalseFindings == 0 && r.Mended
}

// Break makes the fault on a lab whose director has no service yet: it adds an
// IPv4 service, injects the fault, shows what becomes of real traffic, runs the
// doctor, runs the commands that it prints as they stand, and shows the traffic
// again. The error is for what could not be tried.
func (l *Lab) Break(ctx context.Context, fault Fault, progress func(string)) (FaultReport, error) {
	report := FaultReport{Name: fault.Name}
	service := netip.AddrPortFrom(IPv4.VIP(), HTTPPort)
	options := Options{Scheduler: lvs.RoundRobin, Family: IPv4}
	for range l.Servers() {
		options.Weights = append(options.Weights, 1)
	}
	if err := l.AddService(ctx, "-t", service, options); err != nil {
		return report, err
	}
	watch := faultWatch{lab: l, fault: fault, service: service, ports: portWalk{client: l.hosts[0]}}
	if whole, err := watch.until(ctx, isWell); err != nil || !isWell(whole) {
		return report, errors.Join(fmt.Errorf("the network is not right before the fault: %s", whole), err)
	}
	progress("making the fault: " + fault.About)
	if err := fault.inject(ctx, l); err != nil {
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
		if host, known := l.hostOf(f.Host); !known || f.Check != fault.check || host != fault.host {
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
	left, err := l.Diagnose(ctx)
	report.Mended = isWell(report.After) && len(left) == 0
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
	for _, host := range l.hosts {
		if host.MAC.String() == found.MAC || found.MAC == "" && found.Address == host.Address(IPv4) {
			return host.Name, true
		}
	}
	return "", false
}

// A faultWatch sends requests, each from a port of its own.
type faultWatch struct {
	lab     *Lab
	fault   Fault
	service netip.AddrPort
	ports   portWalk
}

func isWell(o Observation) bool { return o.Sent >= enoughGood && o.harm() == 0 }

func isHarmed(o Observation) bool { return o.harm() >= enoughHarm }

// until sends requests, and observes them, until the observation is as wanted or
// the time is over; an observation that can no longer be well is begun anew. It
// returns the last one.
func (w *faultWatch) until(ctx context.Context, wanted func(Observation) bool) (Observation, error) {
	deadline := time.Now().Add(faultTimeout)
	for {
		o, err := w.observe(ctx, deadline, wanted)
		if err != nil || wanted(o) || !time.Now().Before(deadline) {
			return o, err
		}
	}
}

// observe watches requests until they are as wanted, enough of them are not, or the
// deadline.
func (w *faultWatch) observe(ctx context.Context, deadline time.Time, wanted func(Observation) bool) (Observation, error) {
	const most = 100
	o := Observation{SentTo: map[string]int{}, Claimed: map[string]int{}}
	tally := newTally(w.service, w.lab.hosts)
	capture, err := w.lab.Capture(0, func(frame journey.Frame) {
		tally.observe(frame)
		p := journey.Decode(frame.Data)
		if frame.Host == Client && frame.Direction == journey.Out && p.Kind == journey.TCP && p.Flags == journey.SYN &&
			netip.AddrPortFrom(p.Destination, p.DestinationPort) == w.service {
			o.SentTo[tally.name(p.DestinationMAC)]++
		}
	})
	if err != nil {
		return o, err
	}
	sent, answered := 0, 0
	for sent < most && time.Now().Before(deadline) && ctx.Err() == nil && err == nil {
		if w.fault.before != nil {
			err = w.fault.before(w.lab)
		}
		if err == nil && w.request(ctx) {
			answered++
		}
		sent++
		if sent-answered >= enoughHarm || sent == enoughGood && wanted(Observation{Sent: sent, Answered: answered}) {
			break
		}
	}
	// What was lost only makes the counts of frames smaller.
	_, lost := capture.Stop()
	if err := errors.Join(err, lost, context.Cause(ctx)); err != nil {
		return o, err
	}
	o.Sent, o.Answered, o.Claimed = sent, answered, tally.claims
	o.Learnt, err = w.lab.learnt()
	return o, err
}

// request reports whether one request was answered.
func (w *faultWatch) request(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, faultPatience)
	defer cancel()
	_, err := w.lab.get(ctx, w.service, w.ports.next(w.service))
	return err == nil
}

// WriteText writes the report for people.
func (r FaultReport) WriteText(w io.Writer) error {
	var text strings.Builder
	fmt.Fprintf(&text, "Fault %s\n\nBroken:  %s\n", r.Name, r.Broken)
	for _, f := range r.Found {
		fmt.Fprintf(&text, "\nThe doctor found %s:\n  %s\n  %s\n", f.Check, f.What, f.Why)
		for _, remedy := range f.Mend {
			fmt.Fprintf(&text, "  mended on %s:\n    %s\n", remedy.Host, remedy.Command)
		}
	}
	if len(r.Found) == 0 {
		fmt.Fprint(&text, "\nThe doctor found nothing\n")
	}
	fmt.Fprintf(&text, "\nAfter:   %s\n", r.After)
	_, err := io.WriteString(w, text.String())
	return err
}
