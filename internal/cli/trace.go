package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/journey"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A traceCommand is what the command line of a trace says.
type traceCommand struct {
	env                       Env
	director                  directorFlags
	output                    outputFormat
	protocol, client, service string
	count                     uint64
	length                    time.Duration
	pcap                      string
}

func newTraceCommand(env Env) *cobra.Command {
	c := &traceCommand{env: env}
	cmd := &cobra.Command{
		Use:   "trace",
		Short: "Tell of packets as they pass through the data plane",
		Long: `Tell of packets as they pass through a director's data plane, each with what the
program itself saw: the virtual service found, the scheduler's choice and every
candidate's figures, the connection before and after, the frames that came in and
left with their MAC and IP addresses, and the verdict.

While a trace goes on, a program that looks on takes the place of the plain one,
without a gap; afterwards the plain one is put back, and without a trace there is
nothing to pay. Up to eight traces can go on at the same time. Packets that come
too fast are forwarded but not told of; how many is said.

--pcap writes each frame as it came in and as it left, which a capture on the host
cannot see. With -o json, each line is an object: {"event":"begin"} once packets
are picked, one of each packet with "event":"packet", one with "event":"lost" when
more were lost, and one with "event":"end".`,
		Example: `  fairlead trace --service 192.0.2.100:80
  fairlead trace --protocol tcp --client 203.0.113.0/24 --count 10
  fairlead trace --client '[2001:db8:3::5]:40000' --for 30s -o json
  fairlead trace --service 192.0.2.100:80 --count 100 --pcap trace.pcapng`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd) },
	}
	c.director.add(cmd, env)
	flags := cmd.Flags()
	flags.StringVar(&c.protocol, "protocol", "", "`name`: tcp, udp or sctp (default: any packet, also what is none of them)")
	flags.StringVar(&c.client, "client", "", "client's `address`, with /LENGTH for a network and with :PORT for one port")
	flags.StringVar(&c.service, "service", "", "virtual service's `address`, with :PORT for one port")
	flags.Uint64Var(&c.count, "count", 0, "end after so many packets")
	flags.DurationVar(&c.length, "for", 0, "end after so `long`, like 30s")
	flags.StringVar(&c.pcap, "pcap", "", "write the frames to this `file` (pcapng, with comments)")
	c.output.add(cmd)
	return cmd
}

// filter checks the command line.
func (c *traceCommand) filter() (f lvs.TraceFilter, err error) {
	if f.Protocol, err = parseProtocolFlag(c.protocol); err != nil {
		return f, err
	}
	for _, side := range []struct {
		flag, text string
		to         *lvs.Endpoint
	}{{"--client", c.client, &f.Client}, {"--service", c.service, &f.Virtual}} {
		if side.text == "" {
			continue
		}
		if *side.to, err = lvs.ParseEndpoint(side.text); err != nil {
			return f, fmt.Errorf("%s %w", side.flag, err)
		}
	}
	if c.length < 0 || c.length%time.Millisecond != 0 {
		return f, fmt.Errorf("--for %s: want whole milliseconds", c.length)
	}
	f.Count, f.For = c.count, c.length
	return f, nil
}

func (c *traceCommand) run(cmd *cobra.Command) error {
	filter, err := c.filter()
	if err != nil {
		return err
	}
	if err := c.output.check(); err != nil {
		return err
	}
	var printer tracePrinter = &traceText{c.env}
	if c.output == jsonOutput {
		printer = &traceJSON{json.NewEncoder(c.env.Stdout)}
	}
	return c.director.speak(func(client *api.Client) error { return c.follow(cmd, client, filter, printer) })
}

// follow tells of packets until the trace ends.
func (c *traceCommand) follow(cmd *cobra.Command, client *api.Client, filter lvs.TraceFilter, printer tracePrinter) (err error) {
	tally := &traceTally{printer: printer}
	if c.pcap != "" {
		status, err := client.Status(cmd.Context())
		if err != nil {
			return err
		}
		names := make([]string, len(status.Interfaces))
		for i, in := range status.Interfaces {
			names[i] = in.Name
		}
		file, err := os.Create(c.pcap)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		if tally.recorder, err = journey.NewRecorder(file, names); err != nil {
			return err
		}
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err = client.Trace(ctx, filter, tally.visit)
	if ctx.Err() != nil && cmd.Context().Err() == nil && errors.Is(err, context.Canceled) {
		err = nil // stopped, as people do
	}
	if err != nil {
		return err
	}
	return printer.end(tally.packets, tally.lost)
}

// A tracePrinter tells of a trace in one format.
type tracePrinter interface {
	begin() error
	packet(number int, p *lvs.TracedPacket, lost uint64) error
	lost(lost uint64) error
	end(packets int, lost uint64) error
}

// A traceTally follows a trace.
type traceTally struct {
	printer  tracePrinter
	recorder *journey.Recorder // nil: the frames are not kept
	begun    bool
	packets  int
	lost     uint64
}

func (t *traceTally) visit(report lvs.TraceReport) error {
	more := report.Lost > t.lost
	t.lost = report.Lost
	switch {
	case report.Packet != nil:
		t.packets++
		if t.recorder != nil {
			if err := t.record(report.Packet); err != nil {
				return err
			}
		}
		return t.printer.packet(t.packets, report.Packet, report.Lost)
	case !t.begun:
		t.begun = true
		return t.printer.begin()
	case more:
		return t.printer.lost(report.Lost)
	}
	return nil
}

// record keeps a packet as it came in and, if it did, as it left.
func (t *traceTally) record(p *lvs.TracedPacket) error {
	what := verdictText(p.Explanation)
	if p.Choice.By != lvs.ChosenByNobody {
		what += "; real server " + choiceText(p.Choice)
	}
	frame := journey.Frame{
		Host: interfaceText(p.In), Direction: journey.In, Time: p.Time, Data: p.InData, Length: p.In.Length,
	}
	if err := t.recorder.Record(frame, fmt.Sprintf("packet %d as it came in: %s", t.packets, what)); err != nil {
		return err
	}
	if p.Out == nil {
		return nil
	}
	frame = journey.Frame{
		Host: interfaceText(*p.Out), Direction: journey.Out, Time: p.Time, Data: p.OutData, Length: p.Out.Length,
	}
	return t.recorder.Record(frame, fmt.Sprintf("packet %d as it left: %s", t.packets, what))
}

// traceText tells people: of packets on standard output, of the trace itself on
// standard error.
type traceText struct{ env Env }

func (w *traceText) begin() error {
	_, err := fmt.Fprintln(w.env.Stderr, "tracing; Ctrl-C ends it")
	return err
}

func (w *traceText) packet(number int, p *lvs.TracedPacket, _ uint64) error {
	t := &teller{to: w.env.Stdout}
	what := "not TCP, UDP or SCTP, or not read so far"
	if p.Protocol != 0 {
		what = fmt.Sprintf("%s %s -> %s%s", p.Protocol, p.Client, p.Virtual, flagsText(p.Protocol, p.Flags))
	}
	t.write("#%d  %s  %s\n\n", number, p.Time.Format("15:04:05.000000"), what)
	tellExplanation(t, p.Explanation, p.Omitted)
	t.write("\n")
	return t.err
}

func (w *traceText) lost(lost uint64) error {
	_, err := fmt.Fprintf(w.env.Stderr, "%s; they came too fast to be told of, and went their way\n", lostText(lost))
	return err
}

func (w *traceText) end(packets int, lost uint64) error {
	_, err := fmt.Fprintf(w.env.Stderr, "%s traced, %s\n", plural(packets, "packet"), lostText(lost))
	return err
}

func lostText(lost uint64) string { return fmt.Sprintf("%d lost", lost) }

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// traceJSON tells programs, one object a line.
type traceJSON struct{ encoder *json.Encoder }

type tracePacketJSON struct {
	Event  string    `json:"event"`
	Number int       `json:"number"`
	Time   time.Time `json:"time"`
	explanationJSON
	Omitted int    `json:"omitted_candidates"`
	Lost    uint64 `json:"lost"`
}

type traceEventJSON struct {
	Event   string `json:"event"`
	Packets *int   `json:"packets,omitempty"`
	Lost    uint64 `json:"lost"`
}

func (w *traceJSON) begin() error { return w.encoder.Encode(traceEventJSON{Event: "begin"}) }

func (w *traceJSON) packet(number int, p *lvs.TracedPacket, lost uint64) error {
	line := tracePacketJSON{
		Event: "packet", Number: number, Time: p.Time.UTC(),
		explanationJSON: newExplanationJSON(p.Explanation), Omitted: p.Omitted, Lost: lost,
	}
	if p.Protocol != 0 {
		line.Protocol, line.Client, line.Virtual = p.Protocol.String(), p.Client.String(), p.Virtual.String()
		line.Flags = p.Flags.String()
	}
	return w.encoder.Encode(line)
}

func (w *traceJSON) lost(lost uint64) error {
	return w.encoder.Encode(traceEventJSON{Event: "lost", Lost: lost})
}

func (w *traceJSON) end(packets int, lost uint64) error {
	return w.encoder.Encode(traceEventJSON{Event: "end", Packets: &packets, Lost: lost})
}
