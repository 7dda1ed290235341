package ipvsadm

import (
	"strings"
	"testing"
)

// wrongLines are the mistakes of people who write rules.
var wrongLines = []string{
	"-A", "-A -t", "-A -t 192.0.2.100", "-A -t 192.0.2.100:99999", "-A -t 192.0.2.100:nosuch", "-A -t 192.0.2.300:80", "-A -t nosuch.example:80",
	"-A -t 192.0.2.100:0", "-A -u 192.0.2.100:0", "-A -t 192.0.2.100:80 -u 192.0.2.100:53", "-A -t 192.0.2.100:80 -t 192.0.2.100:81",
	"-A -t 192.0.2.100:80 -s nosuch", "-A -t 192.0.2.100:80 -s", "-A -t 192.0.2.100:80 -r 198.51.100.11", "-A -t 192.0.2.100:80 -w 1",
	"-A -t 2001:db8::100:80 -s", "-A -t [2001:db8::100:80", "-A -t [2001:db8::zz]:80",
	"-A -t 192.0.2.100:80 -p 0", "-A -t 192.0.2.100:80 -p -5", "-A -t 192.0.2.100:80 -p 2678401", "-A -t 192.0.2.100:80 -p abc", "-A -t 192.0.2.100:80 --persistent=0",
	"-A -t 192.0.2.100:80 -p 60 -M", "-A -t 192.0.2.100:80 -p 60 -M 33x", "-A -t 192.0.2.100:80 -p 60 -M 255.255.255.256",
	"-A -t [2001:db8::100]:80 -p 60 -M 0", "-A -t [2001:db8::100]:80 -p 60 -M 129", "-A -t [2001:db8::100]:80 -p 60 -M ffff::",
	"-A -u 192.0.2.100:5060 --pe nosuch -p",
	"-A -f 0", "-A -f -1", "-A -f 4294967296", "-A -f abc", "-A -f", "-A -6 -t 192.0.2.100:80", "-A -6", "-a -f 7 -r [2001:db8::11] -6 -g -f 8",
	"-A -t 192.0.2.100:80 -o", "-a -t 192.0.2.1:80 -r 198.51.100.11 -o", "-D -f 7 -o", "-A --sctp-service 192.0.2.100:2905 -o",
	"-A -t 192.0.2.100:80 -s sh -b", "-A -t 192.0.2.100:80 -s sh -b nosuch", "-A -t 192.0.2.100:80 -s rr -b sh-port", "-A -t 192.0.2.100:80 -s mh -b sh-port", "-D -t 192.0.2.1:80 -b flag-1",
	"-A --sctp-service", "-A --sctp-service 192.0.2.100", "-A --sctp-service 192.0.2.100:0", "-A --sctp-service 192.0.2.100:http", "-A --sctp-service 192.0.2.100:80 -t 192.0.2.100:80",
	"-a -t 192.0.2.1:80 -r 198.51.100.11 -i --tun-type", "-a -t 192.0.2.1:80 -r 198.51.100.11 -i --tun-type vxlan", "-a -t 192.0.2.1:80 -r 198.51.100.11 -i --tun-type gue",
	"-a -t 192.0.2.1:80 -r 198.51.100.11 -i --tun-type ipip --tun-port 6080", "-a -t 192.0.2.1:80 -r 198.51.100.11 -i --tun-type ipip --tun-csum",
	"-a -t 192.0.2.1:80 -r 198.51.100.11 -i --tun-type gue --tun-port 0", "-a -t 192.0.2.1:80 -r 198.51.100.11 -i --tun-type gue --tun-port 65536",
	"-a -t 192.0.2.1:80 -r 198.51.100.11 -i --tun-type gre --tun-remcsum", "-a -t 192.0.2.1:80 -r 198.51.100.11 -g --tun-type gue --tun-port 6080",
	"-a -t 192.0.2.1:80 -r 198.51.100.11 -i --tun-type gue --tun-port 6080 --tun-csum --tun-nocsum", "-D -t 192.0.2.1:80 --tun-type ipip",
	"-a", "-a -t 192.0.2.1:80", "-a -r 198.51.100.11", "-a -t 192.0.2.9:80 -r 198.51.100.11", "-a -t 192.0.2.1:80 -r 198.51.100.10:80", "-a -t 192.0.2.1:80 -r 198.51.100.11 -w -1",
	"-a -t 192.0.2.1:80 -r 198.51.100.11 -w 2147483648", "-a -t 192.0.2.1:80 -r 198.51.100.11 -w abc", "-a -t 192.0.2.1:80 -r 198.51.100.11 -g -m", "-a -t 192.0.2.1:80 -r 198.51.100.11 -i -g",
	"-a -t 192.0.2.1:80 -r 198.51.100.11 -x -1", "-a -t 192.0.2.1:80 -r 198.51.100.11 -y 5", "-a -t 192.0.2.1:80 -r 198.51.100.11 -x 5 -y 10", "-a -t 192.0.2.1:80 -r 198.51.100.11 -x abc",
	"-a -t 192.0.2.1:80 -r 198.51.100.11 -s rr", "-a -t 192.0.2.1:80 -r [2001:db8::11]:80 -g", "-a -t 192.0.2.1:80 -r 224.0.0.1:80 -g",
	"-e -t 192.0.2.1:80 -r 198.51.100.99:80", "-e -t 192.0.2.1:80", "-d -t 192.0.2.1:80", "-d -t 192.0.2.1:80 -r 198.51.100.99:80", "-d -t 192.0.2.1:80 -r 198.51.100.10:80 -w 1",
	"-A -t 192.0.2.1:80", "-E -t 192.0.2.9:80", "-E", "-D", "-D -t 192.0.2.9:80", "-D -t 192.0.2.1:80 -s rr", "-C -t 192.0.2.1:80", "-C -n", "-R extra", "-S -t 192.0.2.1:80",
	"-Z -t 192.0.2.9:80", "-Z -r 198.51.100.10", "-L -t 192.0.2.9:80", "-L -r 198.51.100.10", "-L --stats -c", "-L --timeout -t 192.0.2.1:80", "-L -s rr", "-L --nosuch", "-L extra",
	"--set", "--set 1", "--set 1 2", "--set a b c", "--set -1 0 0", "--set 0 0 2678401", "-Q", "--nosuch", "nosuch", "-t 192.0.2.1:80", "-n", "-A -L", "-A -D -t 192.0.2.1:80",
}

// TestWrongLines compares what the genuine ipvsadm prints and how it exits when it
// is used wrongly.
func TestWrongLines(t *testing.T) {
	g := mustGenuine(t)
	refused := map[string]bool{}
	for _, line := range wrongLines {
		theirs, ours := newFakeDirector(), newFakeDirector()
		for _, d := range []*fakeDirector{theirs, ours} {
			for _, rule := range []string{"-A -t 192.0.2.1:80 -s wlc", "-a -t 192.0.2.1:80 -r 198.51.100.10:80 -g", "-A -f 7"} {
				if got := play(t.Context(), d, testNames{}, strings.Fields(rule), ""); got != (outcome{}) {
					t.Fatalf("ipvsadm %s: %+v", rule, got)
				}
			}
		}
		if got := compareRuns(t, g, theirs, ours, strings.Fields(line), ""); got.Status == 0 {
			t.Errorf("ipvsadm %s is not refused", line)
		}
		refused[line] = true
	}
	if len(refused) < 100 {
		t.Errorf("%d lines are refused, want 100", len(refused))
	}
	for _, option := range []string{"-p", "-M", "-f", "-o", "-b", "--sctp-service", "--tun-type"} {
		n := 0
		for line := range refused {
			for _, word := range strings.Fields(line) {
				if word == option {
					n++
				}
			}
		}
		if n < 3 {
			t.Errorf("%d refused lines have %s, want 3", n, option)
		}
	}
}
