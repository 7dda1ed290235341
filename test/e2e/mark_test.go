package e2e

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lab"
)

const markedPort = 8080

// mustAnswer has a real server send its name to whoever connects to markedPort,
// until the test ends.
func mustAnswer(t *testing.T, l *lab.Lab, server string) {
	t.Helper()
	serve(t, l, server, netip.AddrPortFrom(netip.Addr{}, markedPort), func(conn net.Conn) { io.WriteString(conn, server) })
}

// mustName returns the name that a real server sends over a new connection.
func mustName(t *testing.T, l *lab.Lab, address netip.AddrPort) string {
	t.Helper()
	conn, err := l.Dial(t.Context(), lab.Client, "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	name, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(name)
}

// The service of a mark takes the packets of two ports as one, before and after the
// director is killed; what no rule marks, it does not.
func TestMark(t *testing.T) {
	l := mustUp(t, labDirectory(t), "mark")
	on := func(line string) string {
		t.Helper()
		words := strings.Fields(line)
		return mustOutput(t, l, lab.Director, words[0], words[1:]...)
	}
	for _, server := range l.Servers() {
		mustAnswer(t, l, server.Name)
	}
	for _, line := range []string{
		"fairlead mark add 7 --protocol tcp --vip " + lab.IPv4.VIP().String() + " --port 80-8080",
		"fairlead mark add 7 --vip " + lab.IPv6.VIP().String() + " --port 80-8080",
		"fairlead mark add 9 --protocol udp --client 198.51.100.0/24 --at 1",
		"fairlead mark add 8",
		"fairlead mark remove 4",
		"fairlead mark add 8 --vip 192.0.2.200",
		"fairlead mark remove --mark 8 --vip 192.0.2.200",
		"ipvsadm -A -f 7 -s rr",
		"ipvsadm -A -f 7 -6 -s rr",
		"ipvsadm -a -f 7 -r 192.0.2.11 -g",
		"ipvsadm -a -f 7 -r 192.0.2.12 -g",
		"ipvsadm -a -f 7 -6 -r [2001:db8::11]:0 -g",
		"ipvsadm -a -f 7 -6 -r [2001:db8::12]:0 -g",
	} {
		on(line)
	}
	const want = `POSITION  MARK  PROTOCOL  CLIENT           CLIENT-PORT  VIP             PORT
1         9     udp       198.51.100.0/24  any          any             any
2         7     tcp       any              any          192.0.2.100     80-8080
3         7     any       any              any          2001:db8::100   80-8080
`
	listing := strings.Join(strings.Fields(want), " ")
	check := func(when string) {
		t.Helper()
		if diff := cmp.Diff(listing, strings.Join(strings.Fields(on("fairlead mark list")), " ")); diff != "" {
			t.Errorf("the rules %s (-want +got):\n%s", when, diff)
		}
		for _, family := range []lab.Family{lab.IPv4, lab.IPv6} {
			// rr takes turns over both ports: they are one service.
			names := map[string]int{}
			for range 2 {
				answer, err := l.Get(t.Context(), service(family, lab.HTTPPort))
				if err != nil {
					t.Fatal(err)
				}
				marked := mustName(t, l, service(family, markedPort))
				if answer.Server == marked {
					t.Errorf("%s, IPv%d: port 80 and then port %d were both answered by %s", when, family, markedPort, marked)
				}
				names[answer.Server]++
				names[marked]++
			}
			if len(names) != len(l.Servers()) {
				t.Errorf("%s, IPv%d: answered by %v", when, family, names)
			}
		}
	}
	check("before")
	if err := l.Kill(t.Context(), lab.Director); err != nil {
		t.Fatal(err)
	}
	if err := l.Start(t.Context(), lab.Director); err != nil {
		t.Fatal(err)
	}
	check("after the director was killed")

	question := "fairlead explain tcp 192.0.2.1:40000 " + service(lab.IPv4, markedPort).String()
	isMarked := func() bool {
		out := on(question)
		return strings.Contains(out, "192.0.2.11") || strings.Contains(out, "192.0.2.12")
	}
	if !isMarked() {
		t.Errorf("a packet that carries the mark does not go to its service:\n%s", on(question))
	}
	on("fairlead mark remove 2")
	if isMarked() {
		t.Errorf("a packet that carries no mark goes to the service of the mark:\n%s", on(question))
	}
	for _, refused := range []struct{ command, says string }{
		{"mark add 9 --protocol udp --client 198.51.100.0/24", "already exists: it is at position 1"},
		{"mark add 9 --at 4", "want 1 to 3"},
		{"mark remove 3", "there are 2"},
		{"mark add 0", "a packet without a mark"},
	} {
		cmd, err := l.Command(t.Context(), lab.Director, "fairlead", strings.Fields(refused.command)...)
		if err != nil {
			t.Fatal(err)
		}
		told, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(told), refused.says) {
			t.Errorf("fairlead %s: %v, %q, want %q", refused.command, err, told, refused.says)
		}
	}
}
