package director

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrRunning: the run directory belongs to a director that runs. The message
// that wraps it names its pid.
var ErrRunning = errors.New("a director runs already")

// A lock makes its holder the only director of a run directory. It ends with
// the process at the latest.
type lock struct{ file *os.File }

// takeLock takes the lock of runDir, or returns ErrRunning at once.
func takeLock(runDir string) (*lock, error) {
	path := filepath.Join(runDir, "director.lock")
	for {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock run directory %s: %w", runDir, err)
		}
		current, err := lockFile(file, path)
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("%w%s: stop it first, have it hand over (--take-over), or choose another run directory", ErrRunning, holder(file))
		}
		if err != nil {
			file.Close()
			return nil, fmt.Errorf("lock run directory %s: %w", runDir, err)
		}
		if current {
			return &lock{file}, nil
		}
		file.Close() // somebody removed it between open and lock
	}
}

// lockFile locks file and writes the pid into it. It returns false if path is
// another file by now.
func lockFile(file *os.File, path string) (current bool, err error) {
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return false, err
	}
	locked, err := file.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Stat(path)
	if err != nil || !os.SameFile(locked, there) {
		return false, nil
	}
	if err := file.Truncate(0); err != nil {
		return false, err
	}
	_, err = file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return true, err
}

// holder returns " (pid N)", or "" if the file does not say.
func holder(file *os.File) string {
	text, err := io.ReadAll(io.LimitReader(file, 32))
	pid, parseErr := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || parseErr != nil {
		return ""
	}
	return fmt.Sprintf(" (pid %d)", pid)
}

// release lets the next one take the lock.
func (l *lock) release() { l.file.Close() }

// remove lets go of the lock and takes its file away.
func (l *lock) remove() error {
	defer l.release()
	return os.Remove(l.file.Name())
}
