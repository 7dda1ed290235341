package cli

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairlead-lb/fairlead/internal/dataplane"
)

func newBenchCommand(env Env) *cobra.Command {
	var only string
	var output outputFormat
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure the data plane's own cost per packet",
		Long: `Measure what the director's program costs per packet, in the kernel, without a
network (BPF_PROG_RUN): packets of an established connection, one of many, through
tunnels, masqueraded both ways and with FullNAT, and the first packet of a new one
with each scheduler over 16 real servers.

Beside it, in turn, runs a program that does nothing but rewrite the MAC
addresses; what the director costs above that is its own. All figures are in ns:
medians of rounds, of each of which the quickest of many short turns counts. The
cases named hash-map are the same program with a kernel hash map for a connection
table, to compare with.

It needs root, changes nothing, and takes about six minutes and 1 GiB of memory.`,
		Example: `  fairlead bench
  fairlead bench --only established/ipv4
  fairlead bench -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := output.check(); err != nil {
				return err
			}
			cases := slices.DeleteFunc(dataplane.BenchCases(), func(c dataplane.BenchCase) bool {
				return !strings.HasPrefix(c.Name, only)
			})
			if len(cases) == 0 {
				return fmt.Errorf("--only %s: no case begins so; fairlead bench lists them all", only)
			}
			results, err := runBench(cmd.Context(), env.Stderr, cases)
			if err != nil {
				return err
			}
			if output == jsonOutput {
				return writeBenchJSON(env.Stdout, results)
			}
			return writeBenchTable(env.Stdout, results)
		},
	}
	output.add(cmd)
	cmd.Flags().StringVar(&only, "only", "", "measure only the cases whose name begins with `prefix`")
	return cmd
}

func runBench(ctx context.Context, progress io.Writer, cases []dataplane.BenchCase) ([]dataplane.BenchResult, error) {
	var results []dataplane.BenchResult
	for i, c := range cases {
		fmt.Fprintf(progress, "%2d of %d  %s\n", i+1, len(cases), c.Name)
		result, err := dataplane.Bench(ctx, c, dataplane.BenchRounds)
		if err != nil {
			return nil, err
		}
		results = append(results, result)
	}
	return results, nil
}

func writeBenchTable(w io.Writer, results []dataplane.BenchResult) error {
	const row = "%-26s %10s %10s %10s\n"
	if _, err := fmt.Fprintf(w, row, "case", "ns/packet", "bare", "above bare"); err != nil {
		return err
	}
	for _, r := range results {
		_, err := fmt.Fprintf(w, row, r.Case, ns(r.NS), ns(r.Bare), ns(r.Above))
		if err != nil {
			return err
		}
	}
	return nil
}

func ns(v float64) string { return fmt.Sprintf("%.1f", v) }

func writeBenchJSON(w io.Writer, results []dataplane.BenchResult) error {
	type row struct {
		Case      string  `json:"case"`
		NS        float64 `json:"ns"`
		BareNS    float64 `json:"bare_ns"`
		AboveBare float64 `json:"above_bare_ns"`
	}
	rows := []row{}
	for _, r := range results {
		rows = append(rows, row{r.Case, tenths(r.NS), tenths(r.Bare), tenths(r.Above)})
	}
	return encodeJSON(w, rows)
}

func tenths(v float64) float64 { return math.Round(v*10) / 10 }
