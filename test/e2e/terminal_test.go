package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A terminal is one that a command runs on.
type terminal struct {
	t      *testing.T
	master *os.File
	slave  *os.File
	width  uint16

	mu   sync.Mutex
	text []byte
}

// newTerminal opens a terminal until the test ends.
func newTerminal(t *testing.T) *terminal {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	master := os.NewFile(uintptr(fd), "/dev/ptmx")
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, master: master, slave: slave, width: 120}
	term.resize()
	go term.read()
	return term
}

// run has a command that is about to be started use the terminal.
func (m *terminal) run(cmd *exec.Cmd) {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = m.slave, m.slave, m.slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	cmd.Env = append(cmd.Env, "TERM=xterm")
}

// read takes what is written on the terminal, until it is closed.
func (m *terminal) read() {
	buffer := make([]byte, 4096)
	for {
		n, err := m.master.Read(buffer)
		m.mu.Lock()
		m.text = append(m.text, buffer[:n]...)
		m.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// resize makes another width of the terminal, on which all is drawn again.
func (m *terminal) resize() {
	m.t.Helper()
	m.width ^= 1
	if err := unix.IoctlSetWinsize(int(m.slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: m.width}); err != nil {
		m.t.Fatal(err)
	}
}

func (m *terminal) press(keys string) {
	m.t.Helper()
	if _, err := m.master.WriteString(keys); err != nil {
		m.t.Fatal(err)
	}
}

// escapes move the cursor, and choose colours.
var escapes = regexp.MustCompile("\x1b(\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b]*(\x07|\x1b\\\\)|[()][0-9A-Z]|[=>78])")

// screen returns what a whole drawing has, whose last line is known.
func (m *terminal) screen(last string) string {
	m.t.Helper()
	m.mu.Lock()
	m.text = nil
	m.mu.Unlock()
	m.resize()
	text := ""
	eventually(m.t, 10*time.Second, "the screen is drawn", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		text = escapes.ReplaceAllString(string(m.text), "\n")
		return strings.Contains(text, last)
	})
	return text
}
