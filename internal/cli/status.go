package cli

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

func newStatusCommand(env Env) *cobra.Command {
	var director directorFlags
	var output outputFormat
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Tell how the director is: services, servers, health, rates, drift, verdicts",
		Long: `Tell how the director is: its version, the interfaces it is attached to and how,
how full the connection table is, each service with its real servers, their health
with its cause and since when, and the next hop of each or why it has none; what was
changed by hand since a configuration was applied, and how packets left the data plane.

Like all commands that speak to a director, it speaks to the one of the run directory,
or, with --address, to one that serves the network (fairlead director --listen).`,
		Example: `  fairlead status
  fairlead status -o json
  fairlead status --run-dir /run/fairlead-blue
  fairlead status --address https://192.0.2.10:8443 --cert me.pem --key me.key --ca director.pem`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(cmd.Context(), env, &director, output, readStatus, printStatus, printStatusJSON)
		},
	}
	director.add(cmd, env)
	output.add(cmd)
	return cmd
}

// A statusReport is what "fairlead status" tells.
type statusReport struct {
	director api.Status
	services []lvs.ServiceStatus
	drift    []api.Change
}

func readStatus(ctx context.Context, client *api.Client) (r statusReport, err error) {
	if r.director, err = client.Status(ctx); err != nil {
		return r, err
	}
	if r.services, err = client.Services(ctx); err != nil {
		return r, err
	}
	r.drift, err = client.Drift(ctx)
	return r, err
}

func printStatus(w io.Writer, r statusReport) error {
	d := r.director
	interfaces := make([]string, 0, len(d.Interfaces))
	for _, i := range d.Interfaces {
		interfaces = append(interfaces, fmt.Sprintf("%s (%s)", i.Name, i.Mode))
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "director\tfairlead %s, up %s\n", d.Version, d.Uptime.Round(time.Second))
	fmt.Fprintf(t, "interfaces\t%s\n", strings.Join(interfaces, ", "))
	fmt.Fprintf(t, "connections\t%d of %d entries in use%s\n", d.TableUsed, d.TableSize, percent(d.TableUsed, d.TableSize))
	if len(r.drift) > 0 {
		fmt.Fprintf(t, "drift\t%s made by hand; fairlead diff shows them\n", plural(len(r.drift), "change"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if err := printServices(w, r.services); err != nil {
		return err
	}
	return printVerdicts(w, d.Verdicts)
}

func percent(part, whole int) string {
	if whole == 0 {
		return ""
	}
	return fmt.Sprintf(" (%.1f %%)", 100*float64(part)/float64(whole))
}

func printServices(w io.Writer, services []lvs.ServiceStatus) error {
	if len(services) == 0 {
		_, err := fmt.Fprint(w, "\nno services; add one: fairlead ipvsadm -A -t 192.0.2.100:80 -s wlc\n")
		return err
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	// Who has no checks and drains nothing is not shown a column for them.
	health, empty := "", ""
	if hasHealth(services) {
		health, empty = "HEALTH\t", "\t"
	}
	fmt.Fprintln(t, "SERVICE\tBY\tWEIGHT\t"+health+"ACTIVE\tINACTIVE\tCONN/S\tPKT/S\tBYTE/S\tNEXT HOP")
	for _, s := range services {
		fmt.Fprintf(t, "%s\t%s\t\t%s\t\t%d\t%d\t%d\t\n",
			s.ServiceKey, s.Scheduler, empty, s.Rates.Connections, s.Rates.InPackets, s.Rates.InBytes)
		for i, r := range s.All() {
			state := ""
			if health != "" {
				state = describeHealth(*r) + "\t"
			}
			fmt.Fprintf(t, "  %s\t%s\t%s\t%s%d\t%d\t%d\t%d\t%d\t%s\n", r.RealServerKey, r.Method,
				describeWeight(*r, i >= len(s.Servers)), state, r.Active, r.Inactive,
				r.Rates.Connections, r.Rates.InPackets, r.Rates.InBytes, describeNextHop(r.NextHop))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return printTroubles(w, services, time.Now())
}

// describeNextHop returns the next hop as a person reads it, or its problem.
func describeNextHop(h lvs.NextHop) string {
	switch {
	case h.Problem != "":
		return "none: " + h.Problem
	case h.Local:
		return "this host"
	case !h.Usable():
		return "none yet"
	case h.VLAN != 0:
		return fmt.Sprintf("%s on %s, VLAN %d", h.Destination, h.InterfaceName, h.VLAN)
	}
	return fmt.Sprintf("%s on %s", h.Destination, h.InterfaceName)
}

// printVerdicts prints the ways out that packets have taken.
func printVerdicts(w io.Writer, verdicts []api.Verdict) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	title := "\nVERDICT\tPACKETS\tKIND\tMEANING\n"
	for _, v := range verdicts {
		if v.Packets == 0 {
			continue
		}
		fmt.Fprint(t, title)
		title = ""
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\n", v.Name, v.Packets, v.Kind, v.Meaning)
	}
	return t.Flush()
}

// What follows is the JSON of "fairlead status -o json": programs rely on it.

type statusJSON struct {
	Version         string          `json:"version"`
	UptimeSeconds   int64           `json:"uptime_seconds"`
	Interfaces      []interfaceJSON `json:"interfaces"`
	ConnectionTable tableJSON       `json:"connection_table"`
	Sweeps          sweepsJSON      `json:"sweeps"`
	Drift           []changeJSON    `json:"drift"`
	Services        []serviceJSON   `json:"services"`
	Verdicts        []verdictJSON   `json:"verdicts"`
}

type interfaceJSON struct {
	Name string `json:"name"`
	Mode string `json:"mode"`
}

// sweepsJSON is of the sweeps of the connection table since the daemon started.
type sweepsJSON struct {
	Count       uint64  `json:"count"`
	LastSeconds float64 `json:"last_seconds"`
	Expired     uint64  `json:"expired"`
}

type tableJSON struct {
	Size int `json:"size"`
	Used int `json:"used"`
}

type serviceJSON struct {
	Protocol  string       `json:"protocol,omitempty"`
	Address   string       `json:"address,omitempty"`
	Mark      uint32       `json:"firewall_mark,omitempty"`
	Scheduler string       `json:"scheduler"`
	Counters  countersJSON `json:"counters"`
	Rates     countersJSON `json:"rates"`
	Servers   []serverJSON `json:"servers"`
	// Withheld are out because they are not healthy, or because a sorry server answers.
	Withheld []serverJSON `json:"withheld,omitempty"`
	Quorum   *quorumJSON  `json:"quorum,omitempty"`
}

type serverJSON struct {
	Address  string       `json:"address"`
	Method   string       `json:"method"`
	Weight   uint32       `json:"weight"`
	Active   uint32       `json:"active_connections"`
	Inactive uint32       `json:"inactive_connections"`
	Counters countersJSON `json:"counters"`
	Rates    countersJSON `json:"rates"`
	NextHop  nextHopJSON  `json:"next_hop"`
	// Retries are clients' first packets that came again before the real server had
	// answered; Resets connections that it refused or broke off (masquerading alone).
	Retries uint32 `json:"retries"`
	Resets  uint32 `json:"resets"`
	// ConfiguredWeight is what was asked for, Weight what is in force.
	ConfiguredWeight uint32      `json:"configured_weight"`
	Health           *healthJSON `json:"health,omitempty"`
	Draining         bool        `json:"draining,omitempty"`
}

// countersJSON are totals, or the same per second.
type countersJSON struct {
	Connections uint64 `json:"connections"`
	InPackets   uint64 `json:"in_packets"`
	OutPackets  uint64 `json:"out_packets"`
	InBytes     uint64 `json:"in_bytes"`
	OutBytes    uint64 `json:"out_bytes"`
}

type nextHopJSON struct {
	Usable         bool   `json:"usable"`
	Local          bool   `json:"local,omitempty"`
	Interface      string `json:"interface,omitempty"`
	SourceMAC      string `json:"source_mac,omitempty"`
	DestinationMAC string `json:"destination_mac,omitempty"`
	VLAN           uint16 `json:"vlan,omitempty"`
	MTU            int    `json:"mtu,omitempty"`
	Gateway        string `json:"gateway,omitempty"`
	Problem        string `json:"problem,omitempty"`
}

type verdictJSON struct {
	Name    string `json:"name"`
	Kind    string `json:"kind"`
	Meaning string `json:"meaning"`
	Packets uint64 `json:"packets"`
}

func printStatusJSON(w io.Writer, r statusReport) error {
	report := statusJSON{
		Version:         r.director.Version,
		UptimeSeconds:   int64(r.director.Uptime / time.Second),
		Interfaces:      []interfaceJSON{},
		ConnectionTable: tableJSON{Size: r.director.TableSize, Used: r.director.TableUsed},
		Sweeps: sweepsJSON{
			Count: r.director.Sweeps.Count, LastSeconds: r.director.Sweeps.Last.Seconds(), Expired: r.director.Sweeps.Expired,
		},
		Drift:    changesJSON(r.drift),
		Services: []serviceJSON{},
		Verdicts: []verdictJSON{},
	}
	for _, i := range r.director.Interfaces {
		report.Interfaces = append(report.Interfaces, interfaceJSON(i))
	}
	for _, s := range r.services {
		report.Services = append(report.Services, newServiceJSON(s))
	}
	for _, v := range r.director.Verdicts {
		if v.Packets != 0 {
			report.Verdicts = append(report.Verdicts, verdictJSON(v))
		}
	}
	return encodeJSON(w, report)
}

func newServiceJSON(s lvs.ServiceStatus) serviceJSON {
	service := serviceJSON{
		Mark:      s.Mark,
		Scheduler: string(s.Scheduler),
		Counters:  countersJSON(s.Counters),
		Rates:     countersJSON(s.Rates),
		Servers:   []serverJSON{},
	}
	if s.Mark == 0 {
		service.Protocol = s.Protocol.String()
		service.Address = netip.AddrPortFrom(s.Address, s.Port).String()
	}
	for _, r := range s.Servers {
		service.Servers = append(service.Servers, newServerJSON(r))
	}
	for _, r := range s.Withheld {
		service.Withheld = append(service.Withheld, newServerJSON(r))
	}
	service.Quorum = newQuorumJSON(s.Quorum)
	return service
}

func newServerJSON(r lvs.RealServerStatus) serverJSON {
	return serverJSON{
		Address: r.RealServerKey.String(), Method: r.Method.String(), Weight: r.Weight,
		Active: r.Active, Inactive: r.Inactive,
		Counters: countersJSON(r.Counters), Rates: countersJSON(r.Rates),
		NextHop: newNextHopJSON(r.NextHop),
		Retries: r.Retries, Resets: r.Resets,
		ConfiguredWeight: r.ConfiguredWeight, Health: newHealthJSON(r.Health), Draining: r.Draining,
	}
}

func newNextHopJSON(h lvs.NextHop) nextHopJSON {
	if !h.Usable() {
		return nextHopJSON{Problem: h.Problem}
	}
	if h.Local {
		return nextHopJSON{Usable: true, Local: true}
	}
	gateway := ""
	if h.Gateway.IsValid() {
		gateway = h.Gateway.String()
	}
	return nextHopJSON{
		Gateway:        gateway,
		Usable:         true,
		Interface:      h.InterfaceName,
		SourceMAC:      h.Source.String(),
		DestinationMAC: h.Destination.String(),
		VLAN:           h.VLAN,
		MTU:            h.MTU,
	}
}
