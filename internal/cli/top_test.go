package cli

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A story is a topSource whose counters grow with each look.
type story struct {
	looks uint64
	err   error
}

func (s *story) Status(context.Context) (api.Status, error) {
	return api.Status{Version: "v1", Uptime: 90 * time.Second, TableSize: 1000, TableUsed: 10, Verdicts: []api.Verdict{
		{Name: "forward", Kind: "normal", Packets: 10}, {Name: "drop-no-next-hop", Kind: "misconfiguration", Packets: 12345},
	}}, s.err
}

func (s *story) Services(context.Context) ([]lvs.ServiceStatus, error) {
	s.looks++
	server := func(address string, weight, active uint32, perLook uint64, problem string) lvs.RealServerStatus {
		return lvs.RealServerStatus{
			RealServer: lvs.RealServer{RealServerKey: lvs.RealServerKey{Address: netip.MustParseAddr(address), Port: 80},
				Method: lvs.DirectRouting, Weight: weight},
			Active: active, Inactive: 2 * active, NextHop: lvs.NextHop{Problem: problem},
			Counters: lvs.Counters{Connections: s.looks * perLook, InPackets: s.looks * perLook * 5, InBytes: s.looks * perLook * 500},
		}
	}
	service := func(address string, servers ...lvs.RealServerStatus) lvs.ServiceStatus {
		status := lvs.ServiceStatus{Service: lvs.Service{
			ServiceKey: lvs.ServiceKey{Protocol: lvs.TCP, Address: netip.MustParseAddr(address), Port: 80}, Scheduler: lvs.RoundRobin,
		}, Servers: servers}
		for _, r := range servers {
			status.Counters = status.Counters.Add(r.Counters)
		}
		return status
	}
	return []lvs.ServiceStatus{
		service("192.0.2.100", server("192.0.2.11", 1, 3, 10, ""), server("192.0.2.12", 2, 4, 0, "192.0.2.12 is silent")),
		service("2001:db8::100", server("2001:db8::11", 1, 1, 2500, "")),
	}, nil
}

func exampleBoard(t *testing.T, looks int) *topBoard {
	t.Helper()
	board, source := newTopBoard(0), &story{}
	for i := range looks {
		if err := board.look(t.Context(), source, time.Unix(int64(2*i), 0)); err != nil {
			t.Fatal(err)
		}
	}
	return board
}

func TestTopBoard(t *testing.T) {
	const want = `fairlead v1, up 1m30s   1255 conn/s  6275 pkt/s  628k byte/s
table 10 of 1000 (1.0 %)   drop-no-next-hop 12.3k (misconfiguration)
NAME                    BY       vCONN/S     PKT/S    BYTE/S    ACTIVE  INACTIVE    WEIGHT  RECENTLY
TCP [2001:db8::100]:80  rr          1250      6250      625k         1         2         1                        ██
  [2001:db8::11]:80     Route       1250      6250      625k         1         2         1                        ██
TCP 192.0.2.100:80      rr             5        25      2500         7        14         3                        ██
  192.0.2.11:80         Route          5        25      2500         3         6         1                        ██
  192.0.2.12:80         Route          0         0         0         4         8         2                        ▁▁  192.0.2.12 is silent
`
	var got strings.Builder
	for _, line := range exampleBoard(t, 3).lines(plainWidth) {
		got.WriteString(line.text + "\n")
	}
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// names returns what the board shows, in order.
func (b *topBoard) names() string {
	var names []string
	for _, r := range b.rows() {
		names = append(names, strings.TrimPrefix(r.shown(), "  "))
	}
	return strings.Join(names, ", ")
}

func TestTopKeys(t *testing.T) {
	const (
		one, six = "TCP 192.0.2.100:80", "TCP [2001:db8::100]:80"
		a, b, c  = "192.0.2.11:80", "192.0.2.12:80", "[2001:db8::11]:80"
	)
	for _, test := range []struct{ keys, want string }{
		{"", strings.Join([]string{six, c, one, a, b}, ", ")},
		{"r", strings.Join([]string{one, b, a, six, c}, ", ")},
		{"a", strings.Join([]string{one, b, a, six, c}, ", ")},
		{"n", strings.Join([]string{one, a, b, six, c}, ", ")},
		{"<", strings.Join([]string{one, a, b, six, c}, ", ")},
		{"< >", strings.Join([]string{six, c, one, a, b}, ", ")},
		{"g", strings.Join([]string{c, a, b}, ", ")},
		{"g w", strings.Join([]string{b, a, c}, ", ")},
		{"space", strings.Join([]string{"+ " + six, one, a, b}, ", ")},
		{"space space", strings.Join([]string{six, c, one, a, b}, ", ")},
		{"j j enter", strings.Join([]string{six, c, "+ " + one}, ", ")},
		{"/ . 1 2", strings.Join([]string{one, b}, ", ")},
		{"/ 2 backspace", strings.Join([]string{six, c, one, a, b}, ", ")},
		{"/ D B 8 enter r", strings.Join([]string{six, c}, ", ")},
		{"/ x x esc", strings.Join([]string{six, c, one, a, b}, ", ")},
		{"/ x x enter down up end", ""},
	} {
		model := &topModel{board: exampleBoard(t, 2), width: 80, height: 24}
		for _, key := range strings.Fields(test.keys) {
			if _, cmd := model.Update(press(key)); cmd != nil {
				t.Errorf("%q: %s ended it", test.keys, key)
			}
			model.View()
		}
		if got := model.board.names(); got != test.want {
			t.Errorf("%q: got  %s\nwant %s", test.keys, got, test.want)
		}
	}
	for _, key := range []string{"q", "ctrl+c", "esc"} {
		if _, cmd := (&topModel{board: exampleBoard(t, 2)}).Update(press(key)); cmd == nil {
			t.Errorf("%s does not end it", key)
		}
	}
}

// press is the message of a key.
func press(key string) tea.KeyPressMsg {
	code, ok := map[string]rune{
		"enter": tea.KeyEnter, "esc": tea.KeyEscape, "backspace": tea.KeyBackspace, "down": tea.KeyDown,
		"up": tea.KeyUp, "end": tea.KeyEnd,
	}[key]
	switch {
	case ok:
		return tea.KeyPressMsg{Code: code}
	case key == "space":
		return tea.KeyPressMsg{Code: ' ', Text: " "}
	case key == "ctrl+c":
		return tea.KeyPressMsg{Code: 'c', Mod: tea.ModCtrl}
	}
	return tea.KeyPressMsg{Code: rune(key[0]), Text: key}
}

// Whatever the size of the terminal, the screen has as many lines, and the chosen row
// is on it.
func TestTopFitsTheScreen(t *testing.T) {
	for _, size := range []tea.WindowSizeMsg{{Width: 200, Height: 50}, {Width: 80, Height: 24}, {Width: 40, Height: 6}, {Width: 1, Height: 1}, {}} {
		model := &topModel{board: exampleBoard(t, 2)}
		model.Update(size)
		for range 6 {
			lines := strings.Split(model.View().Content, "\n")
			if len(lines) > max(size.Height, topFrame+1) {
				t.Errorf("%v: %d lines", size, len(lines))
			}
			if size.Height > topFrame && !strings.Contains(model.View().Content, "\x1b[7m") {
				t.Errorf("%v: row %d is not shown", size, model.cursor)
			}
			model.Update(press("down"))
		}
	}
}

// A director that does not answer is told, and asked again.
func TestTopGoesOn(t *testing.T) {
	source := &story{err: errors.New("director is not reachable")}
	model := &topModel{ctx: t.Context(), source: source, board: exampleBoard(t, 2), width: 80, height: 24, interval: time.Millisecond}
	look := func() {
		t.Helper()
		_, cmd := model.Update(topTick{})
		if _, again := model.Update(cmd()); again == nil {
			t.Fatal("it does not look again")
		}
	}
	look()
	if view := model.View().Content; !strings.Contains(view, "not reachable") || !strings.Contains(view, "192.0.2.11:80") {
		t.Errorf("a look that failed:\n%s", view)
	}
	source.err = nil
	look()
	if view := model.View().Content; strings.Contains(view, "not reachable") {
		t.Errorf("a look that did not:\n%s", view)
	}
}

func TestShort(t *testing.T) {
	for n, want := range map[float64]string{
		0: "0", 0.25: "0.2", 5: "5", 9.96: "10.0", 999.6: "1000", 9999: "9999", 10_000: "10k", 12_345: "12.3k",
		999_400: "999k", 999_600: "1M", 4_560_000: "4.56M", 1e9: "1G", 1.5e15: "1.5e+03T",
	} {
		if got := short(n); got != want {
			t.Errorf("%v: got %s, want %s", n, got, want)
		}
	}
}

func TestTopRefusals(t *testing.T) {
	for _, test := range []struct{ args, says string }{
		{"top x", `"x"`},
		{"top --sort age", "--sort age: want one of connections, packets, bytes, active, inactive, weight, name"},
		{"top --interval 1ms", "--interval 1ms: want 100ms or more"},
		{"top", "director.sock"},
		{"top --once", "director.sock"},
	} {
		status, stdout, stderr := run(t, "", strings.Fields(test.args)...)
		if status != 1 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, test.says) {
			t.Errorf("%s: status %d, stdout %q, stderr %q; want %q", test.args, status, stdout, stderr, test.says)
		}
	}
}
