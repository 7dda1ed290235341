package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// sysctlPrefix is where the kernel's IPVS has its values; scripts may name it.
const sysctlPrefix = "net.ipv4.vs."

func newSysctlCommand(env Env) *cobra.Command {
	var director directorFlags
	var service string
	var output outputFormat
	cmd := &cobra.Command{
		Use:   "sysctl [NAME... | NAME=VALUE...]",
		Short: "Read and set how connections are treated: net.ipv4.vs, and every timeout",
		Long: `Read and set how connections are treated, by the names that the kernel's IPVS has
under net.ipv4.vs, with its ranges, and every timeout by its state. Without a name
all are listed. Of several changes all are made, or none; VALUE "default" gives the
default back. They hold at once, and survive a restart of the director.

With --service the values are one service's own; "default" makes it follow the
director again.`,
		Example: `  fairlead sysctl
  fairlead sysctl conn_reuse_mode
  fairlead sysctl sloppy_tcp=1 timeout_synrecv=30
  fairlead sysctl --service tcp:192.0.2.100:80 timeout_established=3600
  fairlead sysctl --service 'udp:[2001:db8::100]:53' timeout_udp=default
  fairlead sysctl -o json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			report := sysctlReport{all: len(args) == 0}
			var err error
			if service != "" {
				if report.service, err = lvs.ParseServiceKey(service); err != nil {
					return fmt.Errorf("--service %w", err)
				}
			}
			names, changes, err := parseSysctlArgs(args)
			if err != nil {
				return err
			}
			setAndGet := func(ctx context.Context, client *api.Client) (sysctlReport, error) {
				if len(changes) > 0 {
					if err := client.SetSysctls(ctx, report.service, changes); err != nil {
						return report, err
					}
				}
				values, err := client.Sysctls(ctx, report.service)
				if err != nil {
					return report, err
				}
				report.values, err = pickSysctls(values, names)
				return report, err
			}
			return show(cmd.Context(), env, &director, output, setAndGet, printSysctls, printSysctlsJSON)
		},
	}
	director.add(cmd, env)
	cmd.Flags().StringVar(&service, "service", "", "the `service` whose values they are, like tcp:192.0.2.100:80 (default: the director's)")
	output.add(cmd)
	return cmd
}

// parseSysctlArgs reads names, or changes and their names.
func parseSysctlArgs(args []string) (names []string, changes []lvs.SysctlChange, err error) {
	for _, arg := range args {
		name, value, isChange := strings.Cut(strings.TrimPrefix(arg, sysctlPrefix), "=")
		if isChange != (len(changes) > 0) && len(names) > 0 {
			return nil, nil, fmt.Errorf("%s: names to read and NAME=VALUE to set can't be mixed", arg)
		}
		names = append(names, name)
		if !isChange {
			if _, err := lvs.FindSysctl(name); err != nil {
				return nil, nil, err
			}
			continue
		}
		change, err := lvs.ParseSysctlChange(name, value)
		if err != nil {
			return nil, nil, err
		}
		changes = append(changes, change)
	}
	return names, changes, nil
}

// A sysctlReport is what "fairlead sysctl" tells.
type sysctlReport struct {
	service lvs.ServiceKey // the zero key: the director
	all     bool           // values are all there are
	values  []lvs.SysctlValue
}

// pickSysctls returns those of the names in their order; all without a name.
func pickSysctls(values []lvs.SysctlValue, names []string) ([]lvs.SysctlValue, error) {
	if len(names) == 0 {
		return values, nil
	}
	picked := make([]lvs.SysctlValue, 0, len(names))
	for _, name := range names {
		i := slices.IndexFunc(values, func(v lvs.SysctlValue) bool { return v.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("sysctl %s: it is the director's, no service has its own", name)
		}
		picked = append(picked, values[i])
	}
	return picked, nil
}

func printSysctls(w io.Writer, r sysctlReport) error {
	if !r.all {
		for _, v := range r.values {
			if _, err := fmt.Fprintf(w, "%s = %d\n", v.Name, v.Value); err != nil {
				return err
			}
		}
		return nil
	}
	ofService := r.service != lvs.ServiceKey{}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	if ofService {
		fmt.Fprintln(t, "NAME\tVALUE\tOF\tDEFAULT\tMEANING")
	} else {
		fmt.Fprintln(t, "NAME\tVALUE\tDEFAULT\tMEANING")
	}
	for _, v := range r.values {
		fmt.Fprintf(t, "%s\t%d%s\t", v.Name, v.Value, v.Unit)
		if ofService {
			fmt.Fprintf(t, "%s\t", sysctlOwner(v))
		}
		fmt.Fprintf(t, "%d%s\t%s\n", v.Default, v.Unit, v.Meaning)
	}
	if err := t.Flush(); err != nil || ofService {
		return err
	}
	fmt.Fprint(w, "\nnot here, though the kernel has them:\n")
	t = tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, s := range lvs.AbsentSysctls() {
		fmt.Fprintf(t, "  %s\t%s\n", s.Name, s.Why)
	}
	return t.Flush()
}

func sysctlOwner(v lvs.SysctlValue) string {
	if v.Own {
		return "service"
	}
	return "director"
}

// What follows is the JSON of "fairlead sysctl -o json": programs rely on it.

type sysctlsJSON struct {
	Service string             `json:"service,omitempty"`
	Sysctls []sysctlJSON       `json:"sysctls"`
	Absent  []absentSysctlJSON `json:"absent,omitempty"`
}

type sysctlJSON struct {
	Name    string `json:"name"`
	Value   int32  `json:"value"`
	Default int32  `json:"default"`
	Min     int32  `json:"min"`
	Max     int32  `json:"max"`
	Unit    string `json:"unit,omitempty"`
	// Of is "service" for a value of its own, else "director".
	Of      string `json:"of"`
	Meaning string `json:"meaning"`
}

type absentSysctlJSON struct {
	Name string `json:"name"`
	Why  string `json:"why"`
}

func printSysctlsJSON(w io.Writer, r sysctlReport) error {
	report := sysctlsJSON{Sysctls: []sysctlJSON{}}
	ofService := r.service != lvs.ServiceKey{}
	if ofService {
		report.Service = r.service.String()
	}
	for _, v := range r.values {
		report.Sysctls = append(report.Sysctls, sysctlJSON{
			Name: v.Name, Value: v.Value, Default: v.Default, Min: v.Min, Max: v.Max, Unit: v.Unit,
			Of: sysctlOwner(v), Meaning: v.Meaning,
		})
	}
	if r.all && !ofService {
		for _, s := range lvs.AbsentSysctls() {
			report.Absent = append(report.Absent, absentSysctlJSON(s))
		}
	}
	return encodeJSON(w, report)
}
