package cli

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A topLook is what a director told at one moment.
type topLook struct {
	at       time.Time
	status   api.Status
	services []lvs.ServiceStatus
}

func takeTopLook(ctx context.Context, source topSource, at time.Time) (look topLook, err error) {
	if look.status, err = source.Status(ctx); err != nil {
		return look, err
	}
	look.services, err = source.Services(ctx)
	look.at = at
	return look, err
}

// A topName names a service, or a real server of one.
type topName struct {
	service lvs.ServiceKey
	server  lvs.RealServerKey
}

// A topRow is a service or a real server between two looks.
type topRow struct {
	topName
	isServer         bool
	name, how        string
	weight           uint32
	active, inactive uint64
	counters         lvs.Counters
	// rates are per second, of connections, packets and bytes from clients.
	rates   [3]float64
	history []float64 // connections a second, the newest last
	problem string
	closed  bool // a service whose servers are not shown
}

// A topColumn is one to sort by.
type topColumn struct {
	name, key, title string
	of               func(*topRow) float64
}

var topColumns = []topColumn{
	{"connections", "c", "CONN/S", func(r *topRow) float64 { return r.rates[0] }},
	{"packets", "p", "PKT/S", func(r *topRow) float64 { return r.rates[1] }},
	{"bytes", "b", "BYTE/S", func(r *topRow) float64 { return r.rates[2] }},
	{"active", "a", "ACTIVE", func(r *topRow) float64 { return float64(r.active) }},
	{"inactive", "i", "INACTIVE", func(r *topRow) float64 { return float64(r.inactive) }},
	{"weight", "w", "WEIGHT", func(r *topRow) float64 { return float64(r.weight) }},
	{"name", "n", "NAME", nil},
}

func topColumnNames() []string {
	names := make([]string, 0, len(topColumns))
	for _, c := range topColumns {
		names = append(names, c.name)
	}
	return names
}

// topHistory is how many looks the drawn rates go back.
const topHistory = 24

// A topBoard is what top shows, as it was told last and before.
type topBoard struct {
	column   int
	reversed bool
	mixed    bool // servers are sorted among all, not under their service
	search   string
	closed   map[lvs.ServiceKey]bool

	last     topLook
	services []*topRow
	servers  map[lvs.ServiceKey][]*topRow
	known    map[topName]*topRow
}

func newTopBoard(column int) *topBoard {
	return &topBoard{column: column, closed: map[lvs.ServiceKey]bool{}, known: map[topName]*topRow{}}
}

func (b *topBoard) look(ctx context.Context, source topSource, at time.Time) error {
	look, err := takeTopLook(ctx, source, at)
	if err == nil {
		b.add(look)
	}
	return err
}

// add takes what was told now; rates are of the time since the look before.
func (b *topBoard) add(look topLook) {
	elapsed := look.at.Sub(b.last.at).Seconds()
	known := map[topName]*topRow{}
	b.services, b.servers = nil, map[lvs.ServiceKey][]*topRow{}
	for i := range look.services {
		s := &look.services[i]
		row := &topRow{
			topName: topName{service: s.ServiceKey}, name: s.ServiceKey.String(), how: string(s.Scheduler),
			counters: s.Counters,
		}
		b.services = append(b.services, row)
		row.since(b.known[row.topName], elapsed)
		known[row.topName] = row
		for _, r := range s.All() {
			row.active += uint64(r.Active)
			row.inactive += uint64(r.Inactive)
			server := &topRow{
				topName: topName{s.ServiceKey, r.RealServerKey}, isServer: true,
				name: r.RealServerKey.String(), how: r.Method.String(),
				weight: r.Weight, active: uint64(r.Active), inactive: uint64(r.Inactive),
				counters: r.Counters, problem: topProblem(r),
			}
			row.weight += r.Weight
			server.since(b.known[server.topName], elapsed)
			known[server.topName] = server
			b.servers[s.ServiceKey] = append(b.servers[s.ServiceKey], server)
		}
	}
	b.known, b.last = known, look
}

// topProblem says what is wrong with a real server, "" if nothing is.
func topProblem(r *lvs.RealServerStatus) string {
	switch {
	case r.Health.State == lvs.HealthDown:
		return "down: " + r.Health.Cause
	case r.NextHop.Problem != "":
		return r.NextHop.Problem
	case r.Draining:
		return "drained"
	}
	return ""
}

// since works the rates out from what was there before; nil: it is new.
func (r *topRow) since(before *topRow, elapsed float64) {
	if before == nil || elapsed <= 0 {
		return
	}
	for i, c := range [3][2]uint64{
		{r.counters.Connections, before.counters.Connections},
		{r.counters.InPackets, before.counters.InPackets},
		{r.counters.InBytes, before.counters.InBytes},
	} {
		if c[0] >= c[1] { // else it was zeroed
			r.rates[i] = float64(c[0]-c[1]) / elapsed
		}
	}
	r.history = append(slices.Clone(before.history), r.rates[0])
	r.history = r.history[max(len(r.history)-topHistory, 0):]
}

// sortBy chooses a column; the one after the last is the first.
func (b *topBoard) sortBy(column int) {
	b.column = (column + len(topColumns)) % len(topColumns)
}

// toggle opens or closes the service of a row.
func (b *topBoard) toggle(row int) {
	rows := b.rows()
	if row < 0 || row >= len(rows) || b.mixed {
		return
	}
	key := rows[row].service
	b.closed[key] = !b.closed[key]
}

// rows returns what is shown, in order.
func (b *topBoard) rows() []*topRow {
	services := slices.Clone(b.services)
	if b.mixed {
		var all []*topRow
		for _, s := range services {
			all = append(all, b.servers[s.service]...)
		}
		b.sort(all)
		return slices.DeleteFunc(all, func(r *topRow) bool { return !b.found(r) })
	}
	b.sort(services)
	var rows []*topRow
	for _, s := range services {
		servers := slices.Clone(b.servers[s.service])
		b.sort(servers)
		if !b.found(s) {
			servers = slices.DeleteFunc(servers, func(r *topRow) bool { return !b.found(r) })
			if len(servers) == 0 {
				continue
			}
		}
		rows = append(rows, s)
		if s.closed = b.closed[s.service]; !s.closed {
			rows = append(rows, servers...)
		}
	}
	return rows
}

func (b *topBoard) found(r *topRow) bool {
	return strings.Contains(strings.ToLower(r.name), strings.ToLower(b.search))
}

// sort puts the largest first, and names in their order.
func (b *topBoard) sort(rows []*topRow) {
	of := topColumns[b.column].of
	slices.SortStableFunc(rows, func(x, y *topRow) int {
		order := 0
		if of != nil {
			order = cmp.Compare(of(y), of(x))
		}
		if order == 0 {
			order = cmp.Or(x.service.Compare(y.service), x.server.Address.Compare(y.server.Address), cmp.Compare(x.server.Port, y.server.Port))
		}
		if b.reversed {
			return -order
		}
		return order
	})
}

// A topLine is one on the screen.
type topLine struct {
	text             string
	service, problem bool
}

// topHeading is how many lines come before the rows.
const topHeading = 3

// lines returns the whole table for a terminal of that width, uncut.
func (b *topBoard) lines(width int) []topLine {
	s := b.last.status
	var total [3]float64
	for _, row := range b.services {
		for i, rate := range row.rates {
			total[i] += rate
		}
	}
	lines := []topLine{
		{text: fmt.Sprintf("fairlead %s, up %s   %s conn/s  %s pkt/s  %s byte/s", s.Version, s.Uptime.Round(time.Second),
			short(total[0]), short(total[1]), short(total[2]))},
		{text: fmt.Sprintf("table %d of %d%s   %s", s.TableUsed, s.TableSize, percent(s.TableUsed, s.TableSize), troubles(s.Verdicts))},
	}
	rows := b.rows()
	names := len("NAME")
	for _, r := range rows {
		names = max(names, len(r.shown()))
	}
	names = min(names, max(width-columnsWidth, 24))
	heading := fmt.Sprintf("%-*s  %-6s", names, b.title(len(topColumns)-1), "BY")
	for i := range len(topColumns) - 1 {
		heading += fmt.Sprintf(" %9s", b.title(i))
	}
	lines = append(lines, topLine{text: heading + "  RECENTLY"})
	for _, r := range rows {
		text := fmt.Sprintf("%-*s  %-6s", names, cut(r.shown(), names), cut(r.how, 6))
		for _, c := range topColumns[:len(topColumns)-1] {
			text += fmt.Sprintf(" %9s", short(c.of(r)))
		}
		text += "  " + sparkline(r.history)
		if r.problem != "" {
			text += "  " + r.problem
		}
		lines = append(lines, topLine{text, !r.isServer, r.problem != ""})
	}
	return lines
}

// columnsWidth is that of all columns but the name.
const columnsWidth = 2 + 6 + 6*10 + 2 + topHistory

// title marks the column that the rows are sorted by.
func (b *topBoard) title(column int) string {
	title := topColumns[column].title
	if column != b.column {
		return title
	}
	if b.reversed {
		return "^" + title
	}
	return "v" + title
}

func (r *topRow) shown() string {
	switch {
	case r.isServer:
		return "  " + r.name
	case r.closed:
		return "+ " + r.name
	}
	return r.name
}

// troubles names the verdicts that should not be.
func troubles(verdicts []api.Verdict) string {
	var told []string
	for _, v := range verdicts {
		if v.Packets > 0 && v.Kind != "normal" {
			told = append(told, fmt.Sprintf("%s %s (%s)", v.Name, short(float64(v.Packets)), v.Kind))
		}
	}
	if len(told) == 0 {
		return "no packet was lost to misconfiguration"
	}
	return strings.Join(told, ", ")
}

// short writes a number in at most six characters: 999, 12.3k, 4.56M.
func short(n float64) string {
	if n < 10 && n != math.Trunc(n) {
		return fmt.Sprintf("%.1f", n)
	}
	if n = math.Round(n); n < 10_000 {
		return fmt.Sprintf("%.0f", n)
	}
	for _, unit := range []string{"k", "M", "G", "T"} {
		n /= 1000
		if n < 999.5 || unit == "T" {
			return fmt.Sprintf("%.3g%s", n, unit)
		}
	}
	return ""
}

// sparkline draws numbers as heights, the largest of them as a whole block.
func sparkline(history []float64) string {
	const blocks = "▁▂▃▄▅▆▇█"
	heights := []rune(blocks)
	largest := 0.0
	if len(history) > 0 {
		largest = slices.Max(history)
	}
	line := make([]rune, topHistory)
	for i := range line {
		line[i] = ' '
	}
	for i, n := range history {
		height := 0
		if largest > 0 {
			height = int(math.Round(n / largest * float64(len(heights)-1)))
		}
		line[topHistory-len(history)+i] = heights[height]
	}
	return string(line)
}

// cut and padded count runes, each of which is one column wide here.
func cut(text string, width int) string {
	if runes := []rune(text); len(runes) > width {
		return string(runes[:max(width, 0)])
	}
	return text
}

func padded(text string, width int) string {
	return text + strings.Repeat(" ", max(width-len([]rune(text)), 0))
}
