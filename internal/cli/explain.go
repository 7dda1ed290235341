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

func newExplainCommand(env Env) *cobra.Command {
	var director directorFlags
	var flags, in string
	var output outputFormat
	cmd := &cobra.Command{
		Use:   "explain tcp|udp CIP:PORT VIP:PORT",
		Short: "Tell what would become of a packet, and why",
		Long: `Tell what would become of a packet that came in now: the virtual service found,
what the scheduler would choose and why, the connection before and after, the
frame that would be sent, and the verdict. The director runs its own program on a
copy: nothing is sent, no counter, connection or scheduler changes.`,
		Example: `  fairlead explain tcp 203.0.113.5:40000 192.0.2.100:80
  fairlead explain tcp 203.0.113.5:40000 192.0.2.100:80 --flags FA
  fairlead explain udp '[2001:db8:3::5]:40000' '[2001:db8::100]:53' --interface eth1 -o json`,
		Args: cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			question, err := parseQuestion(args[0], args[1], args[2])
			if err != nil {
				return err
			}
			question.Interface = in
			if question.Protocol == lvs.TCP {
				if question.Flags, err = lvs.ParseTCPFlags(flags); err != nil {
					return fmt.Errorf("--flags: %w", err)
				}
			} else if cmd.Flags().Changed("flags") {
				return fmt.Errorf("--flags %s: only TCP has flags", flags)
			}
			explain := func(ctx context.Context, client *api.Client) (explained, error) {
				explanation, err := client.Explain(ctx, question)
				return explained{question, explanation}, err
			}
			return show(cmd.Context(), env, &director, output, explain, printExplanation, printExplanationJSON)
		},
	}
	director.add(cmd, env)
	cmd.Flags().StringVar(&flags, "flags", "S", "TCP `flags`: letters of F S R P A U E C; '' is none")
	cmd.Flags().StringVar(&in, "interface", "", "`name` of the interface it comes in on (default: the director's first)")
	output.add(cmd)
	return cmd
}

func parseQuestion(protocol, client, virtual string) (q lvs.Question, err error) {
	switch strings.ToLower(protocol) {
	case "tcp":
		q.Protocol = lvs.TCP
	case "udp":
		q.Protocol = lvs.UDP
	default:
		return q, fmt.Errorf("protocol %q: want tcp or udp", protocol)
	}
	for _, arg := range []struct {
		name, text string
		to         *netip.AddrPort
	}{{"CIP:PORT", client, &q.Client}, {"VIP:PORT", virtual, &q.Virtual}} {
		if *arg.to, err = netip.ParseAddrPort(arg.text); err != nil {
			return q, fmt.Errorf("%s %q: want an address with a port, like 192.0.2.100:80 or '[2001:db8::100]:80'", arg.name, arg.text)
		}
	}
	return q, nil
}

// A teller writes a story, one numbered step after another.
type teller struct {
	to   io.Writer
	step int
	err  error
}

func (t *teller) tell(what, format string, args ...any) {
	t.step++
	t.write("%2d  %-11s %s\n", t.step, what, fmt.Sprintf(format, args...))
}

func (t *teller) write(format string, args ...any) {
	if t.err == nil {
		_, t.err = fmt.Fprintf(t.to, format, args...)
	}
}

// An explained is what "fairlead explain" tells.
type explained struct {
	question lvs.Question
	lvs.Explanation
}

func printExplanation(w io.Writer, e explained) error {
	q := e.question
	t := &teller{to: w}
	t.write("%s %s -> %s%s\n\n", q.Protocol, q.Client, q.Virtual, flagsText(q.Protocol, q.Flags))
	tellExplanation(t, e.Explanation, 0)
	t.write("\nThis is what would happen now; nothing was sent or changed.\n")
	return t.err
}

// tellExplanation tells a packet's way, and that so many candidates are not told.
func tellExplanation(t *teller, e lvs.Explanation, omitted int) {
	t.tell("in", "%s", frameText(e.In))
	if e.Service == nil {
		t.tell("service", "none")
	} else {
		t.tell("service", "%s", serviceText(*e.Service))
	}
	t.tell("connection", "%s", connectionText(e.Before, "none yet"))
	tellChoice(t, e, omitted)
	t.tell("then", "%s", connectionText(e.After, "no connection"))
	if e.Out == nil {
		t.tell("out", "nothing is sent")
	} else {
		t.tell("out", "%s", frameText(*e.Out))
	}
	t.tell("verdict", "%s; %s", verdictText(e), e.Action)
}

func verdictText(e lvs.Explanation) string {
	return fmt.Sprintf("%s (%s): %s", e.Verdict, e.VerdictKind, e.VerdictMeaning)
}

func flagsText(protocol lvs.Protocol, flags lvs.TCPFlags) string {
	switch {
	case protocol != lvs.TCP:
		return ""
	case flags == 0:
		return ", no flags"
	}
	return ", flags " + flags.String()
}

func serviceText(s lvs.Service) string {
	if s.Scheduler == "" {
		return s.ServiceKey.String() + ", deleted: its connections are left"
	}
	return fmt.Sprintf("%s, scheduler %s", s.ServiceKey, s.Scheduler)
}

func frameText(f lvs.Frame) string {
	text := fmt.Sprintf("%s > %s on %s", f.Source, f.Destination, interfaceText(f))
	if f.VLAN != 0 {
		text += fmt.Sprintf(" VLAN %d", f.VLAN)
	}
	if f.SourceIP.IsValid() {
		text += fmt.Sprintf(", %s > %s, TTL %d", f.SourceIP, f.DestinationIP, f.TTL)
	}
	return fmt.Sprintf("%s, %d bytes", text, f.Length)
}

func interfaceText(f lvs.Frame) string {
	if f.InterfaceName == "" {
		return fmt.Sprintf("interface %d", f.InterfaceIndex)
	}
	return f.InterfaceName
}

func connectionText(c *lvs.Connection, none string) string {
	if c == nil {
		return none
	}
	local := ""
	if c.Local.IsValid() {
		local = fmt.Sprintf(" from %s", c.Local)
	}
	return fmt.Sprintf("%s to %s%s, ends in %s, %d packets, %d bytes", c.State, c.Server, local, c.Expires.Round(time.Second), c.Packets, c.Bytes)
}

func tellChoice(t *teller, e lvs.Explanation, omitted int) {
	if e.Choice.By == lvs.ChosenByNobody {
		t.tell("real server", "none is looked for")
		return
	}
	t.tell("real server", "%s", choiceText(e.Choice))
	if len(e.Candidates) == 0 {
		return
	}
	t.write("\n")
	table := tabwriter.NewWriter(t.to, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "     REAL SERVER\tWEIGHT\tACTIVE\tINACTIVE\tLOAD\tUSABLE")
	for _, c := range e.Candidates {
		chosen, usable := " ", "yes"
		if c.Chosen {
			chosen = "*"
		}
		if why := c.Obstacle(); why != "" {
			usable = "no: " + why
		}
		fmt.Fprintf(table, "   %s %s\t%d\t%d\t%d\t%s\t%s\n", chosen, c.RealServerKey, c.Weight, c.Active, c.Inactive, loadText(e.Service.Scheduler, c), usable)
	}
	if t.err == nil {
		t.err = table.Flush()
	}
	if omitted > 0 {
		t.write("     and %d more\n", omitted)
	}
	t.write("\n")
}

func choiceText(c lvs.Choice) string {
	server := "none"
	if c.Server != (lvs.RealServerKey{}) {
		server = c.Server.String()
	}
	return fmt.Sprintf("%s, by %s: %s", server, c.By, c.Why)
}

func loadText(name lvs.Scheduler, c lvs.Candidate) string {
	switch {
	case c.Divisor == 0 || !c.Usable():
		return "-"
	case name == lvs.LeastConnection:
		return fmt.Sprint(c.Load)
	}
	return fmt.Sprintf("%d/%d", c.Load, c.Divisor)
}

type explanationJSON struct {
	Protocol   string              `json:"protocol"`
	Client     string              `json:"client"`
	Virtual    string              `json:"virtual"`
	Flags      string              `json:"tcp_flags,omitempty"`
	Verdict    string              `json:"verdict"`
	Kind       string              `json:"kind"`
	Meaning    string              `json:"meaning"`
	Action     string              `json:"action"`
	In         frameJSON           `json:"in"`
	Out        *frameJSON          `json:"out,omitempty"`
	Service    *explainServiceJSON `json:"service,omitempty"`
	Candidates []candidateJSON     `json:"candidates"`
	Choice     choiceJSON          `json:"choice"`
	Before     *connectionJSON     `json:"before,omitempty"`
	After      *connectionJSON     `json:"after,omitempty"`
}

type explainServiceJSON struct {
	Protocol  string `json:"protocol"`
	Address   string `json:"address"`
	Scheduler string `json:"scheduler,omitempty"`
}

type frameJSON struct {
	Interface      string `json:"interface,omitempty"`
	Index          int    `json:"interface_index"`
	SourceMAC      string `json:"source_mac"`
	DestinationMAC string `json:"destination_mac"`
	VLAN           uint16 `json:"vlan,omitempty"`
	SourceIP       string `json:"source_ip,omitempty"`
	DestinationIP  string `json:"destination_ip,omitempty"`
	TTL            uint8  `json:"ttl,omitempty"`
	Bytes          int    `json:"bytes"`
}

type candidateJSON struct {
	Server     string `json:"server"`
	Weight     uint32 `json:"weight"`
	Active     uint32 `json:"active_connections"`
	Inactive   uint32 `json:"inactive_connections"`
	Overloaded bool   `json:"overloaded"`
	Usable     bool   `json:"usable"`
	Load       uint64 `json:"load"`
	Divisor    uint32 `json:"divisor"`
	Chosen     bool   `json:"chosen"`
}

type choiceJSON struct {
	By     string `json:"by"`
	Server string `json:"server,omitempty"`
	Why    string `json:"why,omitempty"`
}

type connectionJSON struct {
	Server         string `json:"server"`
	State          string `json:"state"`
	ExpiresSeconds int64  `json:"expires_seconds"`
	Packets        uint32 `json:"packets"`
	Bytes          uint64 `json:"bytes"`
}

func printExplanationJSON(w io.Writer, e explained) error {
	q, report := e.question, newExplanationJSON(e.Explanation)
	report.Protocol, report.Client, report.Virtual = q.Protocol.String(), q.Client.String(), q.Virtual.String()
	report.Flags = q.Flags.String()
	return encodeJSON(w, report)
}

// newExplanationJSON leaves the packet's addresses to its caller.
func newExplanationJSON(e lvs.Explanation) explanationJSON {
	report := explanationJSON{
		Verdict: e.Verdict, Kind: e.VerdictKind, Meaning: e.VerdictMeaning, Action: e.Action,
		In:         newFrameJSON(e.In),
		Candidates: []candidateJSON{},
		Choice:     choiceJSON{By: string(e.Choice.By), Why: e.Choice.Why},
		Before:     newConnectionJSON(e.Before),
		After:      newConnectionJSON(e.After),
	}
	if e.Out != nil {
		out := newFrameJSON(*e.Out)
		report.Out = &out
	}
	if e.Service != nil {
		report.Service = &explainServiceJSON{
			Protocol:  e.Service.Protocol.String(),
			Address:   netip.AddrPortFrom(e.Service.Address, e.Service.Port).String(),
			Scheduler: string(e.Service.Scheduler),
		}
	}
	if e.Choice.Server != (lvs.RealServerKey{}) {
		report.Choice.Server = e.Choice.Server.String()
	}
	for _, c := range e.Candidates {
		report.Candidates = append(report.Candidates, candidateJSON{
			Server: c.RealServerKey.String(), Weight: c.Weight, Active: c.Active, Inactive: c.Inactive,
			Overloaded: c.Overloaded, Usable: c.Usable(), Load: c.Load, Divisor: c.Divisor, Chosen: c.Chosen,
		})
	}
	return report
}

func newFrameJSON(f lvs.Frame) frameJSON {
	report := frameJSON{
		Interface: f.InterfaceName, Index: f.InterfaceIndex,
		SourceMAC: f.Source.String(), DestinationMAC: f.Destination.String(), VLAN: f.VLAN, TTL: f.TTL, Bytes: f.Length,
	}
	if f.SourceIP.IsValid() {
		report.SourceIP, report.DestinationIP = f.SourceIP.String(), f.DestinationIP.String()
	}
	return report
}

func newConnectionJSON(c *lvs.Connection) *connectionJSON {
	if c == nil {
		return nil
	}
	return &connectionJSON{
		Server: c.Server.String(), State: c.State.String(), ExpiresSeconds: int64(c.Expires / time.Second),
		Packets: c.Packets, Bytes: c.Bytes,
	}
}
