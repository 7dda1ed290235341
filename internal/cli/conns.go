package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A connsCommand is what the command line of conns says.
type connsCommand struct {
	env                            Env
	director                       directorFlags
	output                         outputFormat
	protocol                       string
	client, vip, server            string
	clientPort, port, serverPort   uint16
	states, by                     []string
	templates, connections, counts bool
	idle, expires                  time.Duration
	limit                          int
}

func newConnsCommand(env Env) *cobra.Command {
	c := &connsCommand{env: env}
	cmd := &cobra.Command{
		Use:   "conns",
		Short: "List connections, or count them, by any of their fields",
		Long: `List the connections and the templates of persistence that pass all of the filters, in
the order of the table, or count them. The director looks through its table, and only
what is asked for is sent: four million connections are counted in seconds.

IDLE is for how long no packet has set a connection's timer; a template has none. When a
connection was made is not kept. PACKETS and BYTES came from the client.

--by counts by one field or more: protocol, client, client-port, service (protocol, VIP
and port at once), vip, port, server, state, kind (connection or template); the largest
group comes first. With -o json a list has an object on each line.`,
		Example: `  fairlead conns --client 203.0.113.0/24 --state ESTABLISHED
  fairlead conns --vip 192.0.2.100 --port 80 --idle 5m -o json
  fairlead conns --count --server 192.0.2.11
  fairlead conns --by service,state
  fairlead conns --by client --limit 10`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context()) },
	}
	c.director.add(cmd, env)
	flags := cmd.Flags()
	flags.StringVar(&c.protocol, "protocol", "", "`name`: tcp, udp or sctp (default: any)")
	flags.StringVar(&c.client, "client", "", "client's `address`, with /LENGTH for a network and with :PORT for one port")
	flags.Uint16Var(&c.clientPort, "client-port", 0, "client's `port`")
	flags.StringVar(&c.vip, "vip", "", "virtual `address`, with :PORT for one port")
	flags.Uint16Var(&c.port, "port", 0, "virtual service's `port`")
	flags.StringVar(&c.server, "server", "", "real server's `address`, with :PORT for one port")
	flags.Uint16Var(&c.serverPort, "server-port", 0, "real server's `port`")
	flags.StringSliceVar(&c.states, "state", nil, "one of these `states`, as ipvsadm -Lc names them")
	flags.DurationVar(&c.idle, "idle", 0, "idle for at least so `long`, like 5m")
	flags.DurationVar(&c.expires, "expires", 0, "ends within so `long` if no packet comes")
	flags.BoolVar(&c.templates, "templates", false, "only templates of persistence")
	flags.BoolVar(&c.connections, "no-templates", false, "only connections")
	flags.BoolVar(&c.counts, "count", false, "print how many there are")
	flags.StringSliceVar(&c.by, "by", nil, "count by these `fields`")
	flags.IntVar(&c.limit, "limit", 0, "at most so `many` rows (default: all)")
	c.output.add(cmd)
	completeFlag(cmd, "protocol", "tcp", "udp", "sctp")
	completeFlag(cmd, "by", "protocol", "client", "client-port", "service", "vip", "port", "server", "state", "kind")
	cmd.MarkFlagsMutuallyExclusive("templates", "no-templates")
	cmd.MarkFlagsMutuallyExclusive("count", "by")
	return cmd
}

// filter checks the command line.
func (c *connsCommand) filter() (f lvs.ConnectionFilter, err error) {
	if f.Protocol, err = parseProtocolFlag(c.protocol); err != nil {
		return f, err
	}
	for _, side := range []struct {
		flag, address, portFlag string
		port                    uint16
		to                      *lvs.Endpoint
	}{
		{"--client", c.client, "--client-port", c.clientPort, &f.Client},
		{"--vip", c.vip, "--port", c.port, &f.Virtual},
		{"--server", c.server, "--server-port", c.serverPort, &f.Server},
	} {
		if side.address != "" {
			if *side.to, err = lvs.ParseEndpoint(side.address); err != nil {
				return f, fmt.Errorf("%s %w", side.flag, err)
			}
		}
		if side.port != 0 && side.to.Port != 0 {
			return f, fmt.Errorf("%s %s and %s %d: the port is said twice", side.flag, side.address, side.portFlag, side.port)
		}
		side.to.Port = max(side.to.Port, side.port)
	}
	for _, name := range c.states {
		states, err := lvs.ConnectionStatesNamed(name)
		if err != nil {
			return f, fmt.Errorf("--state: %w", err)
		}
		f.States = append(f.States, states...)
	}
	for _, d := range []struct {
		flag  string
		given time.Duration
	}{{"--idle", c.idle}, {"--expires", c.expires}} {
		if d.given < 0 || d.given%time.Second != 0 {
			return f, fmt.Errorf("%s %s: want whole seconds", d.flag, d.given)
		}
	}
	if c.limit < 0 {
		return f, fmt.Errorf("--limit %d: want how many rows, or 0 for all", c.limit)
	}
	switch {
	case c.templates:
		f.Kind = lvs.OnlyTemplates
	case c.connections:
		f.Kind = lvs.OnlyConnections
	}
	f.IdleAtLeast, f.ExpiresWithin, f.Limit = c.idle, c.expires, c.limit
	return f, nil
}

// parseProtocolFlag reads --protocol; "" is any.
func parseProtocolFlag(text string) (lvs.Protocol, error) {
	if text == "" {
		return 0, nil
	}
	for _, p := range []lvs.Protocol{lvs.TCP, lvs.UDP, lvs.SCTP} {
		if strings.EqualFold(text, p.String()) {
			return p, nil
		}
	}
	return 0, fmt.Errorf("--protocol %s: want tcp, udp or sctp", text)
}

func (c *connsCommand) run(ctx context.Context) error {
	filter, err := c.filter()
	if err != nil {
		return err
	}
	if err := c.output.check(); err != nil {
		return err
	}
	var by []lvs.ConnectionField
	for _, name := range c.by {
		field, err := lvs.ParseConnectionField(name)
		if err != nil {
			return fmt.Errorf("--by: %w", err)
		}
		by = append(by, field)
	}
	return c.director.speak(func(client *api.Client) error {
		if c.counts || len(by) > 0 {
			return c.count(ctx, client, filter, by)
		}
		return c.list(ctx, client, filter)
	})
}

func (c *connsCommand) list(ctx context.Context, client *api.Client, filter lvs.ConnectionFilter) error {
	out := bufio.NewWriterSize(c.env.Stdout, 64<<10)
	printer := newConnectionPrinter(out, c.output == jsonOutput)
	if err := client.FindConnections(ctx, filter, printer); err != nil {
		out.Flush()
		return err
	}
	return out.Flush()
}

func (c *connsCommand) count(ctx context.Context, client *api.Client, filter lvs.ConnectionFilter, by []lvs.ConnectionField) error {
	count, err := client.CountConnections(ctx, filter, by)
	switch {
	case err != nil:
		return err
	case c.output == jsonOutput:
		return printCountJSON(c.env.Stdout, by, count)
	case len(by) == 0:
		_, err := fmt.Fprintln(c.env.Stdout, count.Connections)
		return err
	}
	return printCount(c.env.Stdout, by, count)
}

// connectionColumns hold nearly every IPv4 row; longer ones move the rest of theirs. They
// do not wait for all rows, as aligned columns would. Numbers stand at the right.
var connectionColumns = [...]struct {
	heading string
	width   int
	right   bool
}{
	{"PROTO", 5, false}, {"CLIENT", 21, false}, {"VIRTUAL", 21, false}, {"SERVER", 21, false}, {"STATE", 11, false},
	{"IDLE", 6, true}, {"EXPIRES", 7, true}, {"PACKETS", 10, true}, {"BYTES", 12, true},
}

// newConnectionPrinter returns what prints one connection after the other.
func newConnectionPrinter(w io.Writer, asJSON bool) func(lvs.Connection) error {
	if asJSON {
		encoder := json.NewEncoder(w)
		return func(c lvs.Connection) error { return encoder.Encode(newConnLine(&c)) }
	}
	var row connectionRow
	for _, column := range connectionColumns {
		row.column(append(row.text, column.heading...))
	}
	row.end()
	return func(c lvs.Connection) error {
		row.add(&c)
		_, err := w.Write(row.text)
		row.text = row.text[:0]
		return err
	}
}

// A connectionRow is a line of a table of millions; begun is where its column begins.
type connectionRow struct {
	text   []byte
	number int // of the column
	begun  int
}

// column ends a column; text is the row with what stands in it.
func (r *connectionRow) column(text []byte) {
	const blanks = "                     "
	column := connectionColumns[r.number]
	pad := blanks[:max(0, column.width-(len(text)-r.begun))]
	if column.right {
		text = slices.Insert(text, r.begun, []byte(pad)...)
	} else {
		text = append(text, pad...)
	}
	r.number++
	if r.number < len(connectionColumns) {
		text = append(text, "  "...)
	}
	r.text, r.begun = text, len(text)
}

func (r *connectionRow) end() {
	r.text, r.number = append(r.text, '\n'), 0
	r.begun = len(r.text)
}

func (r *connectionRow) add(c *lvs.Connection) {
	r.begun = len(r.text)
	r.column(append(r.text, c.Protocol.String()...))
	r.column(c.Client.AppendTo(r.text))
	r.column(c.Virtual.AppendTo(r.text))
	r.column(c.Server.AppendTo(r.text))
	r.column(append(r.text, c.State.String()...))
	if c.Template {
		r.column(append(r.text, '-'))
	} else {
		r.column(appendBrief(r.text, c.Idle))
	}
	r.column(appendBrief(r.text, c.Expires))
	if c.Template {
		r.column(append(r.text, '-'))
		r.column(append(r.text, "template"...))
	} else {
		r.column(strconv.AppendUint(r.text, uint64(c.Packets), 10))
		bytes := strconv.AppendUint(r.text, c.Bytes, 10)
		if c.Local.IsValid() {
			bytes = c.Local.AppendTo(append(bytes, "  from "...))
		}
		r.column(bytes)
	}
	r.end()
}

// appendBrief writes a time in seconds, or minutes and seconds, or hours and minutes.
func appendBrief(b []byte, d time.Duration) []byte {
	s := uint64(max(0, d) / time.Second)
	large, unit, small, last := s/60, byte('m'), s%60, byte('s')
	switch {
	case s < 60:
		return append(strconv.AppendUint(b, s, 10), 's')
	case s >= 3600:
		large, unit, small, last = s/3600, 'h', s/60%60, 'm'
	}
	b = append(strconv.AppendUint(b, large, 10), unit)
	return append(b, '0'+byte(small/10), '0'+byte(small%10), last)
}

// A connLine is a line of "fairlead conns -o json": programs rely on it.
type connLine struct {
	Protocol       string         `json:"protocol"`
	Client         netip.AddrPort `json:"client"`
	Virtual        netip.AddrPort `json:"virtual"`
	Server         netip.AddrPort `json:"server"`
	Local          netip.AddrPort `json:"local,omitzero"`
	State          string         `json:"state"`
	ExpiresSeconds int64          `json:"expires_seconds"`
	IdleSeconds    *int64         `json:"idle_seconds,omitempty"`
	Packets        uint32         `json:"packets"`
	Bytes          uint64         `json:"bytes"`
	Template       bool           `json:"template"`
	// Of a template that is named by more than its client.
	PersistenceEngine string `json:"persistence_engine,omitempty"`
	PersistenceData   string `json:"persistence_data,omitempty"`
}

func newConnLine(c *lvs.Connection) connLine {
	j := connLine{
		Protocol: c.Protocol.String(), Client: c.Client, Virtual: c.Virtual, Server: c.Server, Local: c.Local,
		State: c.State.String(), ExpiresSeconds: int64(c.Expires / time.Second),
		Packets: c.Packets, Bytes: c.Bytes, Template: c.Template,
		PersistenceEngine: c.PersistenceEngine, PersistenceData: c.PersistenceData,
	}
	if !c.Template {
		idle := int64(c.Idle / time.Second)
		j.IdleSeconds = &idle
	}
	return j
}

func printCount(w io.Writer, by []lvs.ConnectionField, count lvs.ConnectionCount) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, field := range by {
		fmt.Fprintf(t, "%s\t", strings.ToUpper(string(field)))
	}
	fmt.Fprintln(t, "CONNECTIONS\tPACKETS\tBYTES")
	for _, g := range count.Groups {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\n", strings.Join(g.Values, "\t"), g.Connections, g.Packets, g.Bytes)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if count.Omitted > 0 {
		_, err := fmt.Fprintf(w, "and %s more; %s in all\n", plural(count.Omitted, "group"), plural(int(count.Connections), "connection"))
		return err
	}
	return nil
}

// A countJSON is what "fairlead conns --count -o json" and --by print.
type countJSON struct {
	totalJSON
	Groups  []groupJSON `json:"groups,omitempty"`
	Omitted int         `json:"omitted_groups,omitempty"`
}

type totalJSON struct {
	Connections uint64 `json:"connections"`
	Packets     uint64 `json:"packets"`
	Bytes       uint64 `json:"bytes"`
}

type groupJSON struct {
	Values map[string]string `json:"values"`
	totalJSON
}

func printCountJSON(w io.Writer, by []lvs.ConnectionField, count lvs.ConnectionCount) error {
	report := countJSON{totalJSON: totalJSON(count.ConnectionTotal), Omitted: count.Omitted}
	for _, g := range count.Groups {
		group := groupJSON{map[string]string{}, totalJSON(g.ConnectionTotal)}
		for i, field := range by {
			group.Values[string(field)] = g.Values[i]
		}
		report.Groups = append(report.Groups, group)
	}
	return encodeJSON(w, report)
}
