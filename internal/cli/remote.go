package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/fairlead-lb/fairlead/internal/api"
)

// A directorFlags says which director a command speaks to: that of a run directory
// on this host, or one that serves an address.
type directorFlags struct {
	dir    string
	remote api.Remote
	// local is set by --run-dir, which is stronger than an address from the
	// environment.
	local func() bool
}

// The environment's part of directorFlags, for commands whose options are somebody
// else's, too.
const (
	addressVariable = "FAIRLEAD_ADDRESS"
	certVariable    = "FAIRLEAD_CERT"
	keyVariable     = "FAIRLEAD_KEY"
	caVariable      = "FAIRLEAD_CA"
)

// environmentDirector returns the director that the environment names.
func environmentDirector(env Env) directorFlags {
	return directorFlags{
		dir: runDir(env),
		remote: api.Remote{
			Address: env.Getenv(addressVariable), Cert: env.Getenv(certVariable),
			Key: env.Getenv(keyVariable), CA: env.Getenv(caVariable),
		},
		local: func() bool { return false },
	}
}

// add gives cmd and the commands below it the options that say which director they
// speak to.
func (f *directorFlags) add(cmd *cobra.Command, env Env) {
	*f = environmentDirector(env)
	runDirFlag(cmd, env, &f.dir)
	flags := cmd.PersistentFlags()
	flags.StringVar(&f.remote.Address, "address", f.remote.Address, "speak to the director that serves this `https URL`, in place of the one of the run directory; also from "+addressVariable)
	flags.StringVar(&f.remote.Cert, "cert", f.remote.Cert, "`file` of this client's certificate (PEM), for --address; also from "+certVariable)
	flags.StringVar(&f.remote.Key, "key", f.remote.Key, "`file` of its key; also from "+keyVariable)
	flags.StringVar(&f.remote.CA, "ca", f.remote.CA, "`file` of the certificates that the director's is checked against (default: the system's); also from "+caVariable)
	f.local = func() bool { return flags.Changed("run-dir") && !flags.Changed("address") }
	cmd.MarkFlagsMutuallyExclusive("run-dir", "address")
}

// speak has do speak to the director.
func (f *directorFlags) speak(do func(*api.Client) error) error {
	client, err := f.client()
	if err != nil {
		return err
	}
	defer client.Close()
	return do(client)
}

// client returns a client of the director; the caller closes it.
func (f *directorFlags) client() (*api.Client, error) {
	if f.remote.Address == "" || f.local() {
		return clientOf(f.dir), nil
	}
	if f.remote.Cert == "" || f.remote.Key == "" {
		return nil, errors.New("--address needs --cert and --key: a director lets nobody in over the network without a certificate")
	}
	return api.NewRemoteClient(f.remote)
}
