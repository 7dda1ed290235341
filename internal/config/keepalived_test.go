package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// mustImport imports a configuration that lies in files by name; main.conf includes
// the others.
func mustImport(t *testing.T, id string, files map[string]string) *keepalivedImport {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	im, err := importKeepalived(filepath.Join(dir, "main.conf"), id)
	if err != nil {
		t.Fatal(err)
	}
	for name := range files {
		wantAccounted(t, im, filepath.Join(dir, name))
	}
	for i := range im.listed {
		im.listed[i].File = filepath.Base(im.listed[i].File)
	}
	return im
}

// wantAccounted sees that each line of a file is carried over or listed.
func wantAccounted(t *testing.T, im *keepalivedImport, path string) {
	t.Helper()
	accounted := map[linePlace]bool{}
	for at := range im.carried {
		accounted[at] = true
	}
	for _, l := range im.listed {
		accounted[linePlace{l.File, l.Line}] = true
	}
	var walk func([]*statement)
	walk = func(block []*statement) {
		for _, s := range block {
			if s.carried {
				accounted[s.at.place()] = true
			}
			walk(s.block)
		}
	}
	walk(im.root.block)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(withoutComment(line))
		if strings.Trim(line, "{} \t") != "" && !accounted[linePlace{path, i + 1}] {
			t.Errorf("%s:%d: %s: neither carried over nor listed", path, i+1, line)
		}
	}
}

// The samples that keepalived comes with.
func TestImportSamples(t *testing.T) {
	samples, err := filepath.Glob("/usr/share/doc/keepalived/samples/keepalived.conf.*")
	if err != nil {
		t.Fatal(err)
	}
	if len(samples) == 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("keepalived's samples are not installed: scripts/test-deps")
		}
		t.Skip("keepalived's samples are not installed: scripts/test-deps")
	}
	services := 0
	for _, path := range samples {
		im, err := importKeepalived(path, "low")
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		wantAccounted(t, im, path)
		for _, l := range im.listed {
			if strings.Contains(l.Reason, "is not known here") {
				t.Errorf("%v", l)
			}
		}
		written := Write(im.config)
		if _, err := Parse(path, []byte(written)); err != nil {
			t.Errorf("%v\n%s", err, written)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if declared := strings.Contains("\n"+string(data), "\nvirtual_server "); declared != (len(im.config.Services) > 0) {
			t.Errorf("%s: %d services", path, len(im.config.Services))
		}
		services += len(im.config.Services)
	}
	if services < 20 {
		t.Errorf("%d services in %d samples", services, len(samples))
	}
}

func TestImportKeepalived(t *testing.T) {
	im := mustImport(t, "main", map[string]string{
		"main.conf": `! comment
global_defs {
    lvs_timeouts tcp 3600 udp 60
    lvs_sync_daemon eth0
    router_id x
}
include sub/*.conf
virtual_server_group web {
    192.0.2.100-101 80
    192.0.2.104/31 443   # two
    fwmark 7
}
virtual_server group web {
    lvs_sched sh
    sh-port
    lvs_method TUN type gue port 6080 csum
    delay_loop 10
    persistence_timeout
    persistence_granularity 255.255.255.0
    sorry_server 192.0.2.99 80
    sorry_server_inhibit
    sorry_server_lvs_method DR
    quorum 2
    quorum_down "/usr/bin/page quorum lost" nobody
    real_server 198.51.100.11 {
        weight 3
        uthreshold 10
        lthreshold 5
        notify_up /usr/bin/up
        inhibit_on_failure
        TCP_CHECK {
            connect_timeout 2
            connect_port 8080
            bindto 192.0.2.1
        }
        FILE_CHECK {
            track_file weights
        }
    }
    real_server 198.51.100.12 {
        weight 0
        notify_down /usr/bin/down
    }
}
virtual_server 2001:db8::100 53 {
    protocol UDP
    lb_algo rr
    lb_kind NAT
    ops
    real_server 2001:db8:1::11 5353 {
        DNS_CHECK {
            type a
            name www.example.com
        }
        UDP_CHECK {
            payload 00 1 ff
            require_reply a1 X2
        }
        MISC_CHECK {
            misc_path "/usr/bin/check --udp"
            misc_dynamic
            misc_timeout 7
            user nobody
        }
    }
}
virtual_server 192.0.2.100 80 {
}
virtual_server 192.0.2.120 0 {
}
virtual_server 192.0.2.121 80 {
    lvs_method DR
    real_server 198.51.100.11 8080 {
        SSL_GET {
            enable_sni
            url { path /a
                status_code 200 301-302
                regex "o[kK]"
                regex_options caseless
            }
            url {
                path /b
                virtualhost b.example.com
            }
            url {
                path /c
                regex x
                regex_no_match
            }
        }
        SMTP_CHECK {
            helo_name checker
            host {
                connect_port 2525
            }
            host {
                connect_ip 192.0.2.5
            }
        }
        PING_CHECK {
        }
        NO_CHECK {
            a b
        }
    }
    persistense_timeout 50
}
vrrp_instance x {
    virtual_ipaddress {
        192.0.2.100
    }
}
`,
		"sub/a.conf": `@main $SERVERS= \
    real_server 198.51.100.${N} 80 { \
        weight ${W} \
    }
@other $W=9
@^other $W=2
$UNUSED=1
virtual_server 192.0.2.130 80 {
    ~SEQ(N, 11, 12) $SERVERS
    ~LST({N, W}, {21, 5}, {22, 6}) real_server 198.51.100.$N 80 { weight $W }
}
include nowhere.conf
`,
	})
	var listed []string
	for _, l := range im.listed {
		listed = append(listed, fmt.Sprintf("%s:%d: %s", l.File, l.Line, l.Reason))
	}
	for _, want := range []string{
		"main.conf:4: there is no sync daemon",
		"main.conf:5: it is of keepalived itself",
		"main.conf:13: no protocol is said, and keepalived takes UDP",
		"main.conf:24: the command is run by the director's own user",
		"main.conf:34: checks are sent from the host's own address",
		"main.conf:36: the file's number is the weight here, or up above 0, not an offset: write a check of type file",
		"main.conf:42: a server without checks is never up or down",
		"main.conf:67: service udp:192.0.2.100:80 is there already",
		"main.conf:69: service udp:192.0.2.120:0: a service of all ports needs persistence_timeout",
		"main.conf:73: only NAT changes the port: the server has the service's, 80; checks ask port 8080",
		"main.conf:85: a body that is not to match is not asked for",
		"main.conf:96: one address is asked by a check: write another check for this one",
		"main.conf:102: keyword NO_CHECK is not known here",
		"main.conf:103: keyword NO_CHECK is not known here",
		"main.conf:106: keyword persistense_timeout is not known here",
		"main.conf:108: " + reasonVRRP,
		"a.conf:5: it is not for the configuration id main",
		"a.conf:7: parameter $UNUSED is used nowhere",
		"a.conf:12: there is no such file",
	} {
		if !slices.Contains(listed, want) {
			t.Errorf("not listed: %s", want)
		}
	}
	want := `version: 1
sysctls:
  timeout_established: 1h
  timeout_udp: 1m
services:
  - address: udp:192.0.2.130:80
    scheduler: wlc
    method: masquerade
    servers:
      - address: 198.51.100.11
        weight: 2
      - address: 198.51.100.12
        weight: 2
      - address: 198.51.100.21
        weight: 5
      - address: 198.51.100.22
        weight: 6
  - address:
      - udp:192.0.2.100:80
      - udp:192.0.2.101:80
      - udp:192.0.2.104:443
      - udp:192.0.2.105:443
      - fwmark:7
    scheduler: sh
    flags: [sh-port]
    method: tunnel
    tunnel:
      type: gue
      port: 6080
      checksum: full
    persistence:
      timeout: 6m
      mask: 255.255.255.0
    quorum: 2
    notify:
      - on: [quorum-down]
        script: {command: /usr/bin/page, args: [quorum, lost]}
`
	written := Write(im.config)
	if !strings.HasPrefix(written, want) {
		t.Errorf("-want +got:\n%s", cmp.Diff(want, written))
	}
	for _, part := range []string{
		`      - address: 198.51.100.11
        weight: 3
        upper: 10
        lower: 5
        inhibit: true
        checks:
          - type: tcp
            path: rip
            port: 8080
            interval: 10s
            fall: 2
        notify:
          - on: [quorum-down]
            script: {command: /usr/bin/page, args: [quorum, lost]}
          - on: [up]
            script: {command: /usr/bin/up}
      - address: 198.51.100.12
        weight: 0
`, `
  - address: "udp:[2001:db8::100]:53"
`, `
            dns: {name: www.example.com., type: A}
`, `
            udp:
              payload: hex:0001ff
              expect: "hex:a1?2"
`, `
            script: {command: /usr/bin/check, args: ["--udp"], weight: true}
`, `
        port: 8080
        interval: 1m
        timeout: 5s
        fall: 2
        tls: {verify: false}
        http:
          path: /a
          status: [200, 301-302]
          body-regex: "(?i)o[kK]"
`, `
          host: b.example.com
`,
	} {
		if !strings.Contains(flushLeft(written), flushLeft(strings.Trim(part, "\n"))) {
			t.Errorf("not written:\n%s\n", part)
		}
	}
	if t.Failed() {
		t.Log(written)
		t.Log(strings.Join(listed, "\n"))
	}
	again, err := Parse("imported", []byte(written))
	if err != nil {
		t.Fatal(err)
	}
	sortServices(&im.config)
	sortServices(&again.Configuration)
	if diff := cmp.Diff(im.config, again.Configuration, compareAddresses); diff != "" {
		t.Errorf("-imported +written and read:\n%s", diff)
	}
}

// flushLeft returns lines without the blanks that they begin with.
func flushLeft(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimLeft(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

// Broken files are listed, not fatal, and end.
func TestImportBrokenKeepalived(t *testing.T) {
	for text, want := range map[string]string{
		"virtual_server 192.0.2.1 80 {":      "its brace is never closed",
		"}":                                  "a brace that was not opened",
		"{":                                  "a brace with nothing that it is of",
		"virtual_server":                     "want an address, fwmark N or group NAME",
		"virtual_server group x {\n}":        "there is no virtual_server_group x",
		"virtual_server fwmark 0 {\n}":       "want a mark from 1 to 4294967295",
		"virtual_server 192.0.2.1 http {\n}": `port "http": want 0 to 65535`,
		"$A=${A}x\nvirtual_server $A {\n}":   "parameters in parameters more than 100 deep",
		"~SEQ(A) x":                          "want ~SEQ(variable, start, step, end)",
		"~SEQ(A, 1, 1000000000) x":           "at most 262144 values",
		"~LST(A) x":                          "want ~LST(variable, value, ...)",
		"~FOO(A, 1) x":                       "~FOO: want ~SEQ, ~SEQx or ~LST",
		"include main.conf":                  "files include files more than 16 deep",
		"virtual_server 192.0.2.1 80 {\nretry x\n}":  "want a number, 0 to 999",
		"virtual_server 192.0.2.1 80 {\nalpha so\n}": "want on or off",
		"$A= \\\nx": "parameter $A is used nowhere",
	} {
		im := mustImport(t, "main", map[string]string{"main.conf": text + "\n"})
		if !slices.ContainsFunc(im.listed, func(l Listed) bool { return strings.Contains(l.Reason, want) }) {
			t.Errorf("%q: listed %v, want %s", text, im.listed, want)
		}
	}
}

func FuzzImportKeepalived(f *testing.F) {
	for _, text := range []string{
		"virtual_server 192.0.2.1 80 {\n real_server 192.0.2.2 80 {\n TCP_CHECK {\n}\n}\n}\n", "$A= \\\n x {\n ~SEQ(B, 1, 3) $A\n",
		"virtual_server_group g {\n 192.0.2.1-9 80\n fwmark 7 inet6\n}\nvirtual_server group g {\n lvs_method TUN type gre\n}\n", "@x ~LST({A, B}, {1, 2}) ${A}\"{$B}\n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "include") {
			return // it would read files of this machine
		}
		im := &keepalivedImport{keepalivedReader: newKeepalivedReader("x"), keys: map[lvs.ServiceKey]bool{}}
		im.text("main.conf", text)
		im.finish()
		im.convert()
		im.listRest(im.root.block)
		written := Write(im.config)
		if _, err := Parse("imported", []byte(written)); err != nil {
			t.Fatalf("%v\n%s", err, written)
		}
	})
}
