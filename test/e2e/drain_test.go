package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lab"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A loaded server is drained: no request fails, those that are open go on, and then
// nothing is left. It comes back when it is undrained.
func TestDrain(t *testing.T) {
	requireCommand(t, "ab", "apache2-utils")
	l := mustUp(t, labDirectory(t), "drain")
	address := service(lab.IPv4, lab.HTTPPort)
	mustAddService(t, l, "-t", address, lvs.WeightedRoundRobin)
	server := l.Servers()[0]
	at := server.Address(lab.IPv4).String()

	// A connection to each server.
	kept := map[string]net.Conn{}
	for len(kept) < 2 {
		conn, err := l.Dial(t.Context(), lab.Client, "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		name := mustAsk(t, conn)
		kept[name] = conn
	}

	load := newLoad(t, l, address)
	load.awaitProgress()
	mustOutput(t, l, lab.Director, "fairlead", "drain", at)
	drains := func() (report struct {
		Drains []struct {
			Service, Server string
			Initial, Left   int
			Ended           bool
		}
	}) {
		t.Helper()
		if err := json.Unmarshal([]byte(mustOutput(t, l, lab.Director, "fairlead", "drain", "--list", "-o", "json")), &report); err != nil {
			t.Fatal(err)
		}
		return report
	}
	eventually(t, 10*time.Second, "only the open connection is left", func() bool {
		d := drains().Drains
		return len(d) == 1 && d[0].Left == 1 && d[0].Server == fmt.Sprintf("%s:%d", at, lab.HTTPPort)
	})
	before := givenTo(t, l, server.Name)
	load.awaitProgress()
	load.finish()
	if after := givenTo(t, l, server.Name); after != before {
		t.Errorf("%d new connections to a drained server", after-before)
	}
	if got := mustAsk(t, kept[server.Name]); got != server.Name {
		t.Errorf("the open connection is with %s", got)
	}
	// The weight that was asked for is not forgotten, nor by a restart.
	saved := mustOutput(t, l, lab.Director, "fairlead", "save")
	if err := l.Kill(t.Context(), lab.Director); err != nil {
		t.Fatal(err)
	}
	if err := l.Start(t.Context(), lab.Director); err != nil {
		t.Fatal(err)
	}
	if again := mustOutput(t, l, lab.Director, "fairlead", "save"); again != saved || !strings.Contains(saved, "weight 4") {
		t.Errorf("saved before:\n%s\nafter:\n%s", saved, again)
	}

	out := mustOutput(t, l, lab.Director, "fairlead", "drain", at, "--deadline", "100ms", "--then", "reset", "--wait")
	if !strings.Contains(out, "reset") || len(drains().Drains) != 1 || drains().Drains[0].Left != 0 {
		t.Errorf("at the deadline:\n%s\n%+v", out, drains())
	}
	// Both ends are told, although neither has said anything.
	conn := kept[server.Name]
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the client's end: %v", err)
	}
	peer := conn.LocalAddr().String()
	eventually(t, 10*time.Second, "the server's end is gone", func() bool {
		return !strings.Contains(mustOutput(t, l, server.Name, "ss", "-Htn", "state", "established"), peer)
	})

	mustOutput(t, l, lab.Director, "fairlead", "undrain", at)
	if len(drains().Drains) != 0 {
		t.Errorf("undrained: %+v", drains())
	}
	back := eventually(t, 60*time.Second, "the server has new connections", func() bool {
		_, err := l.Get(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		return givenTo(t, l, server.Name) > before
	})
	t.Logf("the server is back after %s", back)
}

// givenTo returns how many connections the director has given to a server.
func givenTo(t *testing.T, l *lab.Lab, name string) uint64 {
	t.Helper()
	sum := uint64(0)
	for _, s := range mustServices(t, l) {
		for _, r := range s.Servers {
			for _, host := range l.Servers() {
				if host.Name == name && (r.Address == host.Address(lab.IPv4) || r.Address == host.Address(lab.IPv6)) {
					sum += r.Counters.Connections
				}
			}
		}
	}
	return sum
}
