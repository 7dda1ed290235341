// Fairlead is a layer-4 load balancer: Linux Virtual Server for today's kernels.
package main

import (
	"context"
	"os"

	"github.com/fairlead-lb/fairlead/internal/cli"
)

func main() {
	env := cli.Env{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv}
	os.Exit(cli.Main(context.Background(), env, cli.CommandLine(os.Args)))
}
