package director

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestLock(t *testing.T) {
	dir := t.TempDir()
	first, err := takeLock(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = takeLock(dir)
	if !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), "pid "+strconv.Itoa(os.Getpid())) {
		t.Errorf("second director: got %v, want ErrRunning with the pid", err)
	}
	if err != nil && strings.Contains(err.Error(), "\n") {
		t.Errorf("%q is not one line", err)
	}
	first.release()
	second, err := takeLock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.remove(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if _, err := takeLock(filepath.Join(dir, "nowhere")); err == nil || errors.Is(err, ErrRunning) {
		t.Errorf("no directory: got %v", err)
	}
}

// A file that was removed after it was opened is nobody's lock.
func TestLockOfRemovedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if current, err := lockFile(file, path); current || err != nil {
		t.Errorf("got %t, %v, want false", current, err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if current, err := lockFile(file, path); current || err != nil {
		t.Errorf("another file of that name: got %t, %v, want false", current, err)
	}
}
