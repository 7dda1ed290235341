package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/fairlead-lb/fairlead/internal/lab"
)

// faultNames returns the names for --break.
func faultNames() string {
	var names []string
	for _, fault := range lab.Faults() {
		names = append(names, fault.Name)
	}
	return strings.Join(names, ", ")
}

// checkFault refuses what does not go with --break, and asks for the network that
// the fault needs.
func (r *labRun) checkFault() error {
	if r.fault == "" {
		return nil
	}
	if r.pcap != "" {
		return fmt.Errorf("--break %s: --pcap is for a network without a fault", r.fault)
	}
	fault, err := lab.FaultByName(r.fault)
	if err != nil {
		return err
	}
	r.config, err = fault.With(r.config, r.options.Family)
	return err
}

// breakNetwork shows the fault on a lab that was just built.
func (r *labRun) breakNetwork(ctx context.Context, l *lab.Lab) error {
	fault, err := lab.FaultByName(r.fault)
	if err != nil {
		return err
	}
	report, err := l.Break(ctx, fault, r.options.Family, r.progress)
	if err != nil {
		return err
	}
	if err := r.printFault(r.env.Stdout, report); err != nil || report.OK() {
		return err
	}
	return fmt.Errorf("lab %s: fault %s: shown %t, %d findings of the doctor, %d of them false, mended %t",
		r.config.Name, report.Name, report.Shown, len(report.Found), report.FalseFindings, report.Mended)
}

func (r *labRun) printFault(w io.Writer, report lab.FaultReport) error {
	if r.output == jsonOutput {
		return r.printJSON(struct {
			Fault lab.FaultReport `json:"fault"`
			OK    bool            `json:"ok"`
		}{report, report.OK()})
	}
	return report.WriteText(w)
}
