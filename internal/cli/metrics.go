package cli

import (
	"github.com/spf13/cobra"

	"github.com/fairlead-lb/fairlead/internal/api"
)

func newMetricsCommand(env Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "metrics",
		Short: "Print the director's metrics for Prometheus",
		Long: `Print what the director serves at /metrics, in Prometheus' text format: for the
textfile collector of node_exporter, where no scraper reaches the director's socket.

The names are those of node_exporter's ipvs collector, with fairlead_ in place of
node_ipvs_, and the same labels; there are more of them.`,
		Example: `  fairlead metrics
  fairlead metrics >/var/lib/node_exporter/fairlead.prom.new &&
      mv /var/lib/node_exporter/fairlead.prom.new /var/lib/node_exporter/fairlead.prom
  curl --unix-socket /run/fairlead/director.sock http://fairlead/metrics`,
		Args: cobra.NoArgs,
	}
	var director directorFlags
	director.add(cmd, env)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return director.speak(func(client *api.Client) error { return client.Metrics(cmd.Context(), env.Stdout) })
	}
	return cmd
}
