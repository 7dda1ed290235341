package e2e

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-lb/fairlead/internal/api/apitest"
	"github.com/fairlead-lb/fairlead/internal/lab"
)

// Over the network a director does what it does on its socket, for clients with a
// certificate of its authority; others are refused before they have said a word.
func TestNetworkAPI(t *testing.T) {
	const at = "192.0.2.11:8443" // the first real server is the director of this test
	l := mustUp(t, labDirectory(t), "network")
	host := l.Servers()[0].Name
	if want := netip.AddrPortFrom(l.Servers()[0].Address(lab.IPv4), 8443).String(); want != at {
		t.Fatalf("the first real server is at %s", want)
	}
	soon := time.Now().Add(time.Hour)
	ours, others := apitest.NewAuthority(t), apitest.NewAuthority(t)
	cert, key := ours.Sign("192.0.2.11", soon)
	cmd, err := l.Command(t.Context(), host, "fairlead", "director", "--interface", "eth0", "--mode", "xdp-generic",
		"--listen", at, "--tls-cert", cert, "--tls-key", key, "--client-ca", ours.File)
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := l.Begin(host, cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	clientCert, clientKey := ours.Sign("operator", soon)
	strangerCert, strangerKey := others.Sign("operator", soon)
	run := func(args ...string) (string, error) {
		args = append(args, "--address", "https://"+at, "--cert", clientCert, "--key", clientKey, "--ca", ours.File)
		return l.Output(t.Context(), lab.Client, "fairlead", args...)
	}
	var last error
	defer func() {
		if t.Failed() {
			t.Logf("last: %v; the director:\n%s", last, &said)
		}
	}()
	eventually(t, time.Minute, "the director answers", func() bool {
		_, last = run("status")
		return last == nil
	})
	file := filepath.Join(t.TempDir(), "fairlead.yaml")
	text := "services: [{address: tcp:192.0.2.100:80, scheduler: wlc, servers: [{address: 192.0.2.12, weight: 7}]}]\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	saved := filepath.Join(t.TempDir(), "director.save")
	for _, step := range []struct{ line, says string }{
		{"apply -f " + file, "revision 1: 2 changes"},
		{"status", "TCP 192.0.2.100:80"}, {"status -o json", `"weight": 7`}, {"top --once", "192.0.2.12:80"},
		{"diff", ""}, {"export", "tcp:192.0.2.100:80"}, {"sysctl timeout_udp=60", ""}, {"sysctl", "timeout_udp"},
		{"drain 192.0.2.12", "192.0.2.12:80"}, {"drain --list", "192.0.2.12:80"}, {"undrain 192.0.2.12", ""},
		{"conns --count", "0"}, {"save", "weight 7"}, {"mark add 5 --protocol tcp --port 81", ""}, {"mark list", "81"}, {"peer list", ""},
		{"rollback --dry-run", ""},
	} {
		out, err := run(strings.Fields(step.line)...)
		if step.line == "rollback --dry-run" {
			if err == nil || !strings.Contains(err.Error(), "no revision before") {
				t.Errorf("%s: %v\n%s", step.line, err, out)
			}
			continue
		}
		if err != nil || !strings.Contains(out, step.says) {
			t.Errorf("%s: %v, want %q:\n%s", step.line, err, step.says, out)
		}
		if step.line == "save" {
			if err := os.WriteFile(saved, []byte(out), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if out, err := run("restore", saved); err != nil {
		t.Errorf("restore: %v\n%s", err, out)
	}
	// ipvsadm's options are its own: the director is in the environment.
	out := mustOutput(t, l, lab.Client, "env", "FAIRLEAD_ADDRESS=https://"+at, "FAIRLEAD_CERT="+clientCert,
		"FAIRLEAD_KEY="+clientKey, "FAIRLEAD_CA="+ours.File, "fairlead", "ipvsadm", "-Sn")
	if !strings.Contains(out, "-a -t 192.0.2.100:80 -r 192.0.2.12:80 -g -w 7") {
		t.Errorf("ipvsadm -Sn:\n%s", out)
	}

	for name, args := range map[string][]string{
		"without a certificate":         {"--ca", ours.File},
		"with a stranger's certificate": {"--cert", strangerCert, "--key", strangerKey, "--ca", ours.File},
		"to a director of strangers":    {"--cert", clientCert, "--key", clientKey, "--ca", others.File},
	} {
		if out, err := l.Output(t.Context(), lab.Client, "fairlead", append([]string{"status", "--address", "https://" + at}, args...)...); err == nil {
			t.Errorf("%s:\n%s", name, out)
		}
	}
	for _, path := range []string{"/metrics", "/healthz", "/readyz"} {
		args := []string{"-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", ours.File}
		url := "https://" + at + path
		if out, err := l.Output(t.Context(), lab.Client, "curl", append(args, url)...); err == nil {
			t.Errorf("%s without a certificate: %s", path, out)
		}
		if out := mustOutput(t, l, lab.Client, "curl", append(args, "--cert", clientCert, "--key", clientKey, url)...); out != "200" {
			t.Errorf("%s: %s", path, out)
		}
	}
}
