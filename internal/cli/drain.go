package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// drainLook is how often a drain that is waited for is looked at.
const drainLook = 500 * time.Millisecond

// parseDrainScope reads "ADDRESS[:PORT]" and a service, "" for all.
func parseDrainScope(server, service string) (scope lvs.DrainScope, err error) {
	if scope.Address, err = netip.ParseAddr(server); err != nil {
		addr, err := netip.ParseAddrPort(server)
		if err != nil || addr.Port() == 0 {
			return lvs.DrainScope{}, fmt.Errorf("SERVER %q: want a real server's address, like 192.0.2.11, 192.0.2.11:80 or [2001:db8::11]:80", server)
		}
		scope.Address, scope.Port = addr.Addr(), addr.Port()
	}
	if service != "" {
		if scope.Service, err = lvs.ParseServiceKey(service); err != nil {
			return lvs.DrainScope{}, fmt.Errorf("--service %w", err)
		}
	}
	return scope, nil
}

// A drainRequest is what "fairlead drain" asks for.
type drainRequest struct {
	scope    lvs.DrainScope
	deadline time.Duration // 0: none
	end      lvs.DrainEnd
}

func parseDrainRequest(server, service string, deadline time.Duration, then string) (drainRequest, error) {
	end, err := lvs.ParseDrainEnd(then)
	switch {
	case err != nil:
		return drainRequest{}, fmt.Errorf("--then %s: want expire or reset", then)
	case then != "" && deadline == 0:
		return drainRequest{}, fmt.Errorf("--then %s: say when, by --deadline", then)
	case deadline < 0 || deadline > api.MaxDrain:
		return drainRequest{}, fmt.Errorf("--deadline %s: want 0 to %s", deadline, api.MaxDrain)
	}
	scope, err := parseDrainScope(server, service)
	return drainRequest{scope, deadline, end}, err
}

func newDrainCommand(env Env) *cobra.Command {
	var director directorFlags
	var service, then string
	var output outputFormat
	var deadline time.Duration
	var wait, list bool
	cmd := &cobra.Command{
		Use:   "drain SERVER",
		Short: "Give a real server no new connections, so that it can be taken away",
		Long: `Give a real server no new connections, in every service or in one, so that it can be
taken away. The connections that it has go on; templates of persistence send it no
more. That holds, also after a restart of the director, until "fairlead undrain".

With --wait, it tells how many connections are left and how fast they end, until none
is. At the deadline, what is left goes on, or --then is done to it: "expire" takes its
entries out of the connection table, "reset" also tells both ends by a RST.`,
		Example: `  fairlead drain 192.0.2.11
  fairlead drain 192.0.2.11:80 --service tcp:192.0.2.100:80 --deadline 5m --then expire --wait
  fairlead drain --list`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if list != (len(args) == 0) {
				return errors.New("want either the SERVER to drain or --list")
			}
			ask := func(ctx context.Context, client *api.Client) ([]lvs.Drain, error) { return client.Drains(ctx) }
			if !list {
				request, err := parseDrainRequest(args[0], service, deadline, then)
				if err != nil {
					return err
				}
				ask = func(ctx context.Context, client *api.Client) ([]lvs.Drain, error) {
					drains, err := client.Drain(ctx, request.scope, request.deadline, request.end)
					if err == nil && wait {
						drains, err = watchDrains(ctx, client, env.Stderr, request.scope)
					}
					return drains, err
				}
			}
			return show(cmd.Context(), env, &director, output, ask, printDrains, printDrainsJSON)
		},
	}
	director.add(cmd, env)
	flags := cmd.Flags()
	flags.StringVar(&service, "service", "", "only in this `service`, like tcp:192.0.2.100:80 (default: in all)")
	flags.DurationVar(&deadline, "deadline", 0, "`how long` connections may go on, like 5m (default: as long as they do)")
	flags.StringVar(&then, "then", "", "what is `done` to what is left at the deadline: expire or reset (default: nothing)")
	flags.BoolVar(&wait, "wait", false, "wait until nothing is left, or the deadline is over")
	flags.BoolVar(&list, "list", false, "list the drains that go on")
	output.add(cmd)
	return cmd
}

// watchDrains tells of the drains of a scope until they are over.
func watchDrains(ctx context.Context, client *api.Client, w io.Writer, scope lvs.DrainScope) ([]lvs.Drain, error) {
	ticker := time.NewTicker(drainLook)
	defer ticker.Stop()
	last := ""
	for {
		drains, err := client.Drains(ctx)
		if err != nil {
			return nil, err
		}
		drains = slices.DeleteFunc(drains, func(d lvs.Drain) bool { return !scope.Has(d.Service, d.Server) })
		if text := tellDrains(drains); text != last {
			fmt.Fprintln(w, text)
			last = text
		}
		if !slices.ContainsFunc(drains, goesOn) {
			return drains, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-ticker.C:
		}
	}
}

// goesOn reports whether a drain is worth waiting for.
func goesOn(d lvs.Drain) bool { return !d.Done() && (!d.Ended || d.Then != lvs.DrainKeep) }

// tellDrains returns the progress of some drains in a line.
func tellDrains(drains []lvs.Drain) string {
	var sum lvs.Drain
	for _, d := range drains {
		sum.Left += d.Left
		sum.Initial += d.Initial
		sum.Rate += d.Rate
		if d.Remaining < 0 || sum.Remaining < 0 {
			sum.Remaining = -1
		} else {
			sum.Remaining = max(sum.Remaining, d.Remaining)
		}
	}
	return fmt.Sprintf("%d of %d connections left, %.1f end a second, %s", sum.Left, sum.Initial, sum.Rate, tellRemaining(sum))
}

func tellRemaining(d lvs.Drain) string {
	switch {
	case d.Left == 0:
		return "done"
	case d.Remaining < 0:
		return "no estimate yet"
	}
	return "about " + d.Remaining.Round(time.Second).String() + " to go"
}

func newUndrainCommand(env Env) *cobra.Command {
	var director directorFlags
	var service string
	cmd := &cobra.Command{
		Use:   "undrain SERVER",
		Short: "Undo drain: the real server gets new connections again, slowly at first",
		Long: `Undo drain: the real server gets its weight back, and its share of new connections
grows to the full one in the time that its service's slow_start says, or 30 seconds.`,
		Example: `  fairlead undrain 192.0.2.11
  fairlead undrain 192.0.2.11:80 --service tcp:192.0.2.100:80`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			scope, err := parseDrainScope(args[0], service)
			if err != nil {
				return err
			}
			return director.speak(func(client *api.Client) error {
				_, err := client.Undrain(cmd.Context(), scope)
				return err
			})
		},
	}
	director.add(cmd, env)
	cmd.Flags().StringVar(&service, "service", "", "only in this `service`, like tcp:192.0.2.100:80 (default: in all)")
	return cmd
}

func printDrains(w io.Writer, drains []lvs.Drain) error {
	const columns = "SERVICE\tSERVER\tLEFT\tOF\tEND/S\tREMAINING\tDEADLINE\tTHEN"
	return printTable(w, drains, "no real server is drained", columns, func(_ int, d lvs.Drain) string {
		deadline := "-"
		switch {
		case d.Ended:
			deadline = "over"
		case !d.Deadline.IsZero():
			deadline = d.Deadline.Format(time.DateTime)
		}
		return fmt.Sprintf("%s\t%s\t%d\t%d\t%.1f\t%s\t%s\t%s", d.Service, d.Server, d.Left, d.Initial, d.Rate, tellRemaining(d), deadline,
			orDash(string(d.Then)))
	})
}

type drainJSON struct {
	Service          string     `json:"service"`
	Server           string     `json:"server"`
	Since            time.Time  `json:"since"`
	Deadline         *time.Time `json:"deadline,omitempty"`
	Then             string     `json:"then,omitempty"`
	Initial          uint32     `json:"initial"`
	Left             uint32     `json:"left"`
	Rate             float64    `json:"rate"`
	RemainingSeconds *float64   `json:"remaining_seconds,omitempty"`
	Ended            bool       `json:"ended"`
}

func printDrainsJSON(w io.Writer, drains []lvs.Drain) error {
	report := struct {
		Drains []drainJSON `json:"drains"`
	}{[]drainJSON{}}
	for _, d := range drains {
		j := drainJSON{
			Service: d.Service.Text(), Server: d.Server.String(), Since: d.Since.UTC(), Then: string(d.Then),
			Initial: d.Initial, Left: d.Left, Rate: d.Rate, Ended: d.Ended,
		}
		if !d.Deadline.IsZero() {
			deadline := d.Deadline.UTC()
			j.Deadline = &deadline
		}
		if d.Remaining >= 0 {
			seconds := d.Remaining.Seconds()
			j.RemainingSeconds = &seconds
		}
		report.Drains = append(report.Drains, j)
	}
	return encodeJSON(w, report)
}
