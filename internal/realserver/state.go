package realserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// stateName is the file in the run directory that remembers what a host was
// before it became a real server.
const stateName = "realserver.json"

// A state is what [RealServer.Up] promised to keep and to put back.
type state struct {
	// Boot and Namespace are those that the values belong to.
	Boot      string `json:"boot,omitempty"`
	Namespace uint64 `json:"namespace,omitempty"`
	VIPs      Spec   `json:"vips"`
	// Before has every subject that the points are about, in the order of the first
	// plan, with its value before that.
	Before []setting `json:"before"`
}

// remember notes what the points saw, but for what it knows the true beginning of.
func (s *state) remember(points []Point) {
	for _, p := range points {
		known := func(b setting) bool { return b.subject == p.seen.subject }
		if p.seen.Kind != "" && !slices.ContainsFunc(s.Before, known) {
			s.Before = append(s.Before, p.seen)
		}
	}
}

// here returns a state of this boot and of the network namespace of the calling
// thread, that knows nothing.
func here() (state, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return state{}, fmt.Errorf("read boot: %w", err)
	}
	var namespace unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &namespace); err != nil {
		return state{}, fmt.Errorf("read network namespace: %w", err)
	}
	return state{Boot: strings.TrimSpace(string(boot)), Namespace: namespace.Ino}, nil
}

// loadState returns the state in the run directory, or nil if there is none or the
// host was booted since. It refuses that of another network namespace, and one
// that says what no real server's state can.
func loadState(runDir string) (*state, error) {
	path := filepath.Join(runDir, stateName)
	s, err := readState(path)
	if s == nil || err != nil {
		return nil, err
	}
	now, err := here()
	switch {
	case err != nil:
		return nil, err
	case s.Boot != now.Boot:
		return nil, nil
	case s.Namespace != now.Namespace:
		return nil, fmt.Errorf("read state %s: it is of another network namespace: choose another run directory, "+
			"or remove the file if that namespace is gone", path)
	}
	return s, nil
}

// readState returns nil if there is no such file.
func readState(path string) (*state, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	var s state
	err = decoder.Decode(&s)
	if err == nil {
		err = s.check()
	}
	if err != nil {
		return nil, fmt.Errorf("read state %s: %w: it is damaged; nothing was changed: undo by hand what it tells, "+
			"and remove it", path, err)
	}
	return &s, nil
}

var sysctlName = regexp.MustCompile(`^net/ipv[46]/conf/[^/]+/[a-z_]+$`)

// check makes sure that to put the state back touches only what is ours.
func (s *state) check() error {
	for _, v := range s.VIPs {
		if err := (Request{VIPs: []netip.Addr{v.Address}, Interface: v.Interface}).check(); err != nil {
			return err
		}
		if v.Interface == "" {
			return fmt.Errorf("VIP %s: no interface", v.Address)
		}
		if _, err := parseTunnelEnd(Spec{v}.tunnelEnd(v.Interface, nil)); v.Tunnel != "" && err != nil {
			return err
		}
	}
	for _, b := range s.Before {
		prefix, err := netip.ParsePrefix(b.Name)
		address := b.Kind == kindAddress && err == nil && (b.Value == absent || b.Value == present) && prefix.IsSingleIP()
		name := confInterface(b.Name)
		value := len(b.Value) == 1 && b.Value[0] >= '0' && b.Value[0] <= '9'
		setting := b.Kind == kindSysctl && value && sysctlName.MatchString(b.Name) && name != "." && name != ".."
		end := b.Kind == kindTunnel && b.Value == absent && (Request{Interface: b.Name}).check() == nil
		if !address && !setting && !end {
			return fmt.Errorf("%s %q is %q: no such thing", b.Kind, b.Name, b.Value)
		}
	}
	return nil
}

// save replaces the file as a whole; a nil state is no file.
func (s *state) save(runDir string) error {
	path := filepath.Join(runDir, stateName)
	if s == nil {
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	text, err := s.text()
	if err != nil {
		return err
	}
	if err := writeFile(path, text); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

func (s *state) text() (string, error) {
	text, err := json.MarshalIndent(s, "", "  ")
	return string(text) + "\n", err
}

// writeFile replaces the file as a whole, or not at all.
func writeFile(path, text string) error {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	err = errors.Join(err, file.Chmod(0o644), file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return nil
}

// A lock keeps all but one from changing a real server: a lock on the run
// directory itself, which ends with the process and leaves nothing behind.
type lock struct{ directory *os.File }

func takeLock(runDir string) (*lock, error) {
	directory, err := os.Open(runDir)
	if err != nil {
		return nil, fmt.Errorf("lock run directory: %w", err)
	}
	err = unix.Flock(int(directory.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("%w: stop it first: `systemctl stop fairlead-realserver`, or where else it was started", ErrBusy)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock run directory %s: %w", runDir, err), directory.Close())
	}
	return &lock{directory}, nil
}

func (l *lock) release() { l.directory.Close() }
