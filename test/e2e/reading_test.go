package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lab"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// On a terminal, top shows what goes on as it goes on; its keys sort, look for names, and
// end it.
func TestTop(t *testing.T) {
	l := mustUp(t, labDirectory(t), "top")
	for _, family := range []lab.Family{lab.IPv4, lab.IPv6} {
		mustAddService(t, l, "-t", service(family, lab.HTTPPort), lvs.RoundRobin)
	}
	term := newTerminal(t)
	cmd, err := l.Command(t.Context(), lab.Director, "fairlead", "top", "--interval", "200ms")
	if err != nil {
		t.Fatal(err)
	}
	term.run(cmd)
	if err := l.Begin(lab.Director, cmd); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		term.slave.Close()
	})
	shows := func(what string, words ...string) {
		t.Helper()
		text := ""
		defer func() {
			if t.Failed() {
				t.Logf("%s:\n%q", what, text)
			}
		}()
		eventually(t, 20*time.Second, what, func() bool {
			text = term.screen("q quit")
			for _, word := range words {
				if !strings.Contains(text, word) {
					return false
				}
			}
			return true
		})
	}
	shows("services and servers", "vCONN/S", "TCP 192.0.2.100:80", "TCP [2001:db8::100]:80", "192.0.2.11:80", "[2001:db8::12]:80", " 0 conn/s")

	stop := make(chan struct{})
	var clients sync.WaitGroup
	clients.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := l.Get(t.Context(), service(lab.IPv4, lab.HTTPPort)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	eventually(t, 20*time.Second, "rates", func() bool { return !strings.Contains(term.screen("q quit"), " 0 conn/s") })
	close(stop)
	clients.Wait()
	eventually(t, 20*time.Second, "no rates any more", func() bool { return strings.Contains(term.screen("q quit"), " 0 conn/s") })

	for _, key := range []struct{ key, shows string }{
		{"n", "vNAME"}, {"r", "^NAME"}, {"r", "vNAME"}, {"w", "vWEIGHT"}, {"a", "vACTIVE"}, {"<", "vBYTE/S"}, {">", "vACTIVE"},
		{"i", "vINACTIVE"}, {"p", "vPKT/S"}, {"b", "vBYTE/S"}, {"c", "vCONN/S"},
	} {
		term.press(key.key)
		shows("after "+key.key, key.shows)
	}
	term.press(" ")
	shows("a closed service", "+ TCP ")
	term.press("/")
	term.press("192.0.2.12\r")
	eventually(t, 20*time.Second, "one name", func() bool {
		text := term.screen("looking for 192.0.2.12")
		return !strings.Contains(text, "2001:db8::12")
	})
	term.press("q")
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("q does not end it")
	}
}

// Every filter of conns finds what it says, and nothing else.
func TestConns(t *testing.T) {
	l := mustUp(t, labDirectory(t), "conns")
	mustAddService(t, l, "-t", service(lab.IPv4, lab.HTTPPort), lvs.RoundRobin)
	mustAddService(t, l, "-u", service(lab.IPv6, lab.EchoPort), lvs.RoundRobin)
	mustOutput(t, l, lab.Director, "ipvsadm", "-A", "-t", lab.IPv4.VIP().String()+":81", "-s", "rr", "-p", "300")
	mustOutput(t, l, lab.Director, "ipvsadm", "-a", "-t", lab.IPv4.VIP().String()+":81", "-r", l.Servers()[0].Address(lab.IPv4).String()+":81", "-g")
	keep := func(network string, at netip.AddrPort) netip.AddrPort {
		t.Helper()
		conn, err := l.Dial(t.Context(), lab.Client, network, at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if network == "tcp" {
			mustAsk(t, conn)
			return conn.LocalAddr().(*net.TCPAddr).AddrPort()
		}
		if _, err := conn.Write([]byte("one")); err != nil {
			t.Fatal(err)
		}
		return conn.LocalAddr().(*net.UDPAddr).AddrPort()
	}
	var web []netip.AddrPort
	for range 4 {
		web = append(web, keep("tcp", service(lab.IPv4, lab.HTTPPort)))
	}
	echo := keep("udp", service(lab.IPv6, lab.EchoPort))
	// Nobody listens: a connection that is refused, and its template.
	if conn, err := l.Dial(t.Context(), lab.Client, "tcp", service(lab.IPv4, 81)); err == nil {
		conn.Close()
		t.Fatal("somebody listens on port 81")
	}
	count := func(args ...string) (n int) {
		t.Helper()
		out := mustOutput(t, l, lab.Director, "fairlead", append([]string{"conns", "-o", "json"}, args...)...)
		for line := range strings.Lines(out) {
			var one struct{ Client string }
			if err := json.Unmarshal([]byte(line), &one); err != nil || one.Client == "" {
				t.Fatalf("%s: %v", line, err)
			}
			n++
		}
		return n
	}
	eventually(t, 10*time.Second, "all are in the table", func() bool { return count() == 7 })
	client := web[0].Addr().String()
	first, second := l.Servers()[0].Address(lab.IPv4).String(), l.Servers()[1].Address(lab.IPv4).String()
	for _, test := range []struct {
		args string
		want int
	}{
		{"--protocol udp", 1}, {"--protocol tcp", 6}, {"--protocol sctp", 0},
		{"--client " + client, 6}, {"--client " + web[1].String(), 1}, {"--client 192.0.2.0/24", 6}, {"--client 2001:db8::/32", 1},
		{"--client 203.0.113.0/24", 0}, {fmt.Sprintf("--client-port %d", web[2].Port()), 1}, {fmt.Sprintf("--client-port %d", echo.Port()), 1},
		{"--vip 192.0.2.100", 6}, {"--vip 192.0.2.100:80", 4}, {"--port 7", 1}, {"--port 81", 2},
		{"--server " + second, 2}, {"--server " + second + ":80", 2}, {"--server " + first, 4}, {"--server-port 7", 1},
		{"--state established", 4}, {"--state ESTABLISHED --server " + second, 2}, {"--state UDP", 1}, {"--state SYN_RECV", 1},
		{"--templates", 1}, {"--no-templates", 6}, {"--idle 1h", 0}, {"--idle 0s", 7}, {"--expires 2m --no-templates", 1}, {"--limit 3", 3},
	} {
		if got := count(strings.Fields(test.args)...); got != test.want {
			t.Errorf("%s: %d, want %d\n%s", test.args, got, test.want, mustOutput(t, l, lab.Director, "fairlead", "conns"))
		}
	}
	for _, test := range []struct{ args, want string }{
		{"--count", "7"}, {"--count --protocol tcp --no-templates", "5"}, {"--by kind", "template"}, {"--by service,state", "UDP"},
		{"--by client --limit 1", client}, {"--by server", second},
	} {
		if out := mustOutput(t, l, lab.Director, "fairlead", append([]string{"conns"}, strings.Fields(test.args)...)...); !strings.Contains(out, test.want) {
			t.Errorf("%s:\n%s", test.args, out)
		}
	}
}
