package cli

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// run carries out one command line in an environment of its own.
func run(t *testing.T, stdin string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	runDir := t.TempDir()
	env := Env{Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs, Getenv: func(name string) string {
		if name == runDirVariable {
			return runDir
		}
		return ""
	}}
	status = Main(context.Background(), env, args)
	return status, out.String(), errs.String()
}

func TestCommandLine(t *testing.T) {
	for _, test := range []struct{ argv, want []string }{
		{nil, nil},
		{[]string{"/usr/sbin/fairlead"}, []string{}},
		{[]string{"fairlead", "status"}, []string{"status"}},
		{[]string{"/usr/sbin/ipvsadm", "-Ln"}, []string{"ipvsadm", "-Ln"}},
		{[]string{"ipvsadm"}, []string{"ipvsadm"}},
		{[]string{"./ipvsadm-save", "-n"}, []string{"ipvsadm-save", "-n"}},
		{[]string{"ipvsadm-restore"}, []string{"ipvsadm-restore"}},
	} {
		if got := CommandLine(test.argv); !slices.Equal(got, test.want) {
			t.Errorf("%q: got %q, want %q", test.argv, got, test.want)
		}
	}
}

func TestEveryCommandHasAnExample(t *testing.T) {
	root := newRootCommand(Env{Getenv: func(string) string { return "" }})
	seen := 0
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		seen++
		if !cmd.Hidden && !strings.Contains(cmd.Example, "fairlead") {
			t.Errorf("%s --help has no example", cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(root)
	if seen < 8 {
		t.Errorf("only %d commands", seen)
	}
}

// A refusal is one line that says what is wrong and what to do.
func TestRefusals(t *testing.T) {
	for _, test := range []struct {
		args []string
		says []string
	}{
		{[]string{"director"}, []string{"interface", "fairlead director --interface eth0"}},
		{[]string{"director", "--interface", "eth0", "--mode", "fast"}, []string{"--mode fast", "auto, xdp, xdp-generic or tc"}},
		{[]string{"director", "--interface", "eth0", "--connections", "-1"}, []string{"--connections -1"}},
		{[]string{"director", "eth0"}, []string{"eth0"}},
		{[]string{"status"}, []string{"director.sock", "fairlead director --interface", "FAIRLEAD_RUN_DIR"}},
		{[]string{"status", "-o", "yaml"}, []string{"yaml", "text or json"}},
		{[]string{"status", "--nosuch"}, []string{"--nosuch", "fairlead status --help"}},
		{[]string{"ipvsadm", "-Ln"}, []string{"director.sock"}},
		{[]string{"ipvsadm-save", "-x"}, []string{"-n"}},
		{[]string{"nosuch"}, []string{"nosuch"}},
	} {
		status, stdout, stderr := run(t, "", test.args...)
		if status == 0 || stdout != "" || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: status %d, stdout %q, stderr %q; want a refusal of one line", test.args, status, stdout, stderr)
		}
		for _, word := range test.says {
			if !strings.Contains(stderr, word) {
				t.Errorf("%q: %q does not say %q", test.args, stderr, word)
			}
		}
	}
}

func TestCompletion(t *testing.T) {
	for args, want := range map[string]string{
		"completion bash":                 "__start_fairlead",
		"completion zsh":                  "#compdef fairlead",
		"__complete st":                   "status\t",
		"__complete conns --by ser":       "service\nvip\n",
		"__complete top --sort in":        "inactive\n",
		"__complete director --client":    "--client-ca\t",
		"__complete mark r":               "remove\t",
		"__complete status --output j":    "json\n",
		"__complete conns --protocol=sct": "sctp\n",
	} {
		status, stdout, _ := run(t, "", strings.Fields(args)...)
		if status != 0 || !strings.Contains(stdout, want) {
			t.Errorf("%s: status %d, no %q in\n%s", args, status, want, stdout)
		}
	}
}

// Each command that is shown stands under a heading.
func TestHelpIsInGroups(t *testing.T) {
	status, stdout, _ := run(t, "", "--help")
	for _, word := range []string{"To run:", "To read:", "To change:", "\n  status ", "\n  ipvsadm "} {
		if !strings.Contains(stdout, word) {
			t.Errorf("status %d, no %q in\n%s", status, word, stdout)
		}
	}
	for _, cmd := range newRootCommand(Env{Getenv: func(string) string { return "" }}).Commands() {
		if cmd.GroupID == "" {
			t.Errorf("%s is in no group", cmd.Name())
		}
	}
}

func TestVersion(t *testing.T) {
	status, stdout, stderr := run(t, "", "version")
	if status != 0 || !strings.HasPrefix(stdout, "fairlead ") || stderr != "" {
		t.Errorf("status %d, %q, %q", status, stdout, stderr)
	}
}

func TestUnloadOfNothing(t *testing.T) {
	status, stdout, stderr := run(t, "", "director", "unload", "--run-dir", t.TempDir()+"/nowhere")
	if status != 0 || stdout != "" || stderr != "" {
		t.Errorf("status %d, %q, %q", status, stdout, stderr)
	}
}

func TestWithoutComments(t *testing.T) {
	const saved = "# saved by hand\n-A -t 192.0.2.100:80 -s wlc\n#-A -t 192.0.2.101:80\n-a -t 192.0.2.100:80 -r 192.0.2.11:80 -g -w 1"
	const want = "-A -t 192.0.2.100:80 -s wlc\n-a -t 192.0.2.100:80 -r 192.0.2.11:80 -g -w 1"
	if got := string(withoutComments([]byte(saved))); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
