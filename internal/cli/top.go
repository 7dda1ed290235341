package cli

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

func newTopCommand(env Env) *cobra.Command {
	var (
		interval time.Duration
		order    string
		once     bool
	)
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch services and real servers: rates and connections, live",
		Long: `Watch the services and the real servers of a director: connections, packets and bytes
per second, how they went of late, and the counts. It works in any terminal, over ssh
too. Rates are of the time between two looks.

Keys: arrows, or j and k, move; < and > choose the column to sort by, or its letter:
c connections/s, p packets/s, b bytes/s, a active, i inactive, w weight, n name; r turns
the order round; g groups servers under their services or mixes them; space or enter
opens and closes a service; / looks for a name; q ends.

--once prints one table, without keys or colour, for a pipe: it looks twice, one
interval apart.`,
		Example: `  fairlead top
  fairlead top --sort active --interval 5s
  fairlead top --once | head -20`,
		Args: cobra.NoArgs,
	}
	var director directorFlags
	director.add(cmd, env)
	flags := cmd.Flags()
	flags.DurationVar(&interval, "interval", time.Second, "how `long` between two looks")
	flags.StringVar(&order, "sort", "connections", "`column` to sort by: "+strings.Join(topColumnNames(), ", "))
	flags.BoolVar(&once, "once", false, "print one table and end")
	completeFlag(cmd, "sort", topColumnNames()...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		column := slices.Index(topColumnNames(), order)
		switch {
		case column < 0:
			return fmt.Errorf("--sort %s: want one of %s", order, strings.Join(topColumnNames(), ", "))
		case interval < 100*time.Millisecond:
			return fmt.Errorf("--interval %s: want 100ms or more", interval)
		}
		return director.speak(func(client *api.Client) error {
			board := newTopBoard(column)
			if err := board.look(cmd.Context(), client, time.Now()); err != nil {
				return err
			}
			if once {
				return topOnce(cmd.Context(), env, board, client, interval)
			}
			if !isTerminal(env.Stdin) || !isTerminal(env.Stdout) {
				return fmt.Errorf("top needs a terminal; fairlead top --once prints one table")
			}
			return runTop(cmd.Context(), env, board, client, interval)
		})
	}
	return cmd
}

func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}

// topOnce prints what happened in one interval.
func topOnce(ctx context.Context, env Env, board *topBoard, client *api.Client, interval time.Duration) error {
	timer := time.NewTimer(interval)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	}
	if err := board.look(ctx, client, time.Now()); err != nil {
		return err
	}
	for _, line := range board.lines(plainWidth) {
		if _, err := fmt.Fprintln(env.Stdout, strings.TrimRight(line.text, " ")); err != nil {
			return err
		}
	}
	return nil
}

// plainWidth is wide enough for every column.
const plainWidth = 160

// A topSource is what top looks at; a client is one.
type topSource interface {
	Status(context.Context) (api.Status, error)
	Services(context.Context) ([]lvs.ServiceStatus, error)
}

// A topModel is top on a terminal.
type topModel struct {
	ctx           context.Context
	source        topSource
	board         *topBoard
	interval      time.Duration
	width, height int
	cursor, first int // lines below the heading
	search        string
	typing        bool
	problem       error // of the last look
}

// topLooked says how a look ended, topTick that the next one is due.
type (
	topLooked struct {
		look topLook
		err  error
	}
	topTick struct{}
)

func runTop(ctx context.Context, env Env, board *topBoard, source topSource, interval time.Duration) error {
	model := &topModel{ctx: ctx, source: source, board: board, interval: interval, width: 80, height: 24}
	_, err := tea.NewProgram(model, tea.WithContext(ctx), tea.WithInput(env.Stdin), tea.WithOutput(env.Stdout)).Run()
	if err != nil {
		return fmt.Errorf("top: %w", err)
	}
	return nil
}

// Init implements [tea.Model].
func (m *topModel) Init() tea.Cmd { return m.wait() }

func (m *topModel) wait() tea.Cmd {
	return tea.Tick(m.interval, func(time.Time) tea.Msg { return topTick{} })
}

// Update implements [tea.Model].
func (m *topModel) Update(message tea.Msg) (tea.Model, tea.Cmd) {
	switch message := message.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = message.Width, message.Height
	case topTick:
		return m, func() tea.Msg {
			look, err := takeTopLook(m.ctx, m.source, time.Now())
			return topLooked{look, err}
		}
	case topLooked:
		if m.problem = message.err; message.err == nil {
			m.board.add(message.look)
		}
		return m, m.wait()
	case tea.KeyPressMsg:
		return m.press(message)
	}
	return m, nil
}

func (m *topModel) press(key tea.KeyPressMsg) (tea.Model, tea.Cmd) {
	name := key.String()
	if name == "ctrl+c" {
		return m, tea.Quit
	}
	if m.typing {
		m.typeSearch(key)
		return m, nil
	}
	page := max(m.height-topFrame, 1)
	switch name {
	case "q", "esc":
		return m, tea.Quit
	case "up", "k":
		m.cursor--
	case "down", "j":
		m.cursor++
	case "pgup":
		m.cursor -= page
	case "pgdown":
		m.cursor += page
	case "home":
		m.cursor = 0
	case "end":
		m.cursor = len(m.board.rows()) - 1
	case "<", "left":
		m.board.sortBy(m.board.column - 1)
	case ">", "right":
		m.board.sortBy(m.board.column + 1)
	case "r":
		m.board.reversed = !m.board.reversed
	case "g":
		m.board.mixed = !m.board.mixed
	case "space", "enter":
		m.board.toggle(m.cursor)
	case "/":
		m.typing, m.search = true, ""
	default:
		if i := slices.IndexFunc(topColumns, func(c topColumn) bool { return c.key == name }); i >= 0 {
			m.board.sortBy(i)
		}
	}
	m.cursor = max(min(m.cursor, len(m.board.rows())-1), 0)
	return m, nil
}

// typeSearch takes a key while a name is typed.
func (m *topModel) typeSearch(key tea.KeyPressMsg) {
	switch name := key.String(); {
	case name == "esc":
		m.typing, m.search = false, ""
	case name == "enter":
		m.typing = false
	case name == "backspace":
		m.search = m.search[:max(len(m.search)-1, 0)]
	case len(key.Text) == 1:
		m.search += key.Text
	}
	m.board.search = m.search
	m.cursor = 0
}

// topFrame is how many lines are not rows.
const topFrame = 4

// View implements [tea.Model].
func (m *topModel) View() tea.View {
	lines := m.board.lines(m.width)
	rows := max(m.height-topFrame, 1)
	m.first = max(min(m.first, m.cursor), m.cursor-rows+1, 0)
	var b strings.Builder
	for i, line := range lines {
		row := i - topHeading
		if row >= 0 && (row < m.first || row >= m.first+rows) {
			continue
		}
		text := cut(line.text, m.width)
		switch {
		case row >= 0 && row == m.cursor:
			text = "\x1b[7m" + padded(text, m.width) + "\x1b[0m"
		case row == -1, line.service:
			text = "\x1b[1m" + text + "\x1b[0m"
		case line.problem:
			text = "\x1b[31m" + text + "\x1b[0m"
		}
		b.WriteString(text + "\n")
	}
	b.WriteString(cut(m.footer(), m.width))
	view := tea.NewView(b.String())
	view.AltScreen = true
	view.WindowTitle = "fairlead top"
	return view
}

func (m *topModel) footer() string {
	switch {
	case m.problem != nil:
		return m.problem.Error()
	case m.typing:
		return "look for: " + m.search + "_"
	case m.search != "":
		return "looking for " + m.search + "; / then esc shows all"
	}
	return "q quit  < > sort  r reverse  g group  space open/close  / find"
}
