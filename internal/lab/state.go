package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	stateFile    = "lab.json"
	newStateFile = stateFile + ".new" // until it is whole
)

// A state is what another process must know of a lab.
type state struct {
	Servers   int      `json:"servers"`
	Topology  Topology `json:"topology,omitempty"`
	Method    Method   `json:"method,omitempty"`
	Bystander bool     `json:"bystander,omitempty"`
	Binary    string   `json:"binary"`
	// Kept says that the lab was built whole and outlives its builder.
	Kept      bool      `json:"kept"`
	Processes []Process `json:"processes"` // one of a host and program at most: the latest
}

// config returns what the network was built from.
func (s *state) config() Config {
	return Config{Servers: s.Servers, Topology: s.Topology, Method: s.Method, Bystander: s.Bystander}
}

// process returns the latest process of the host's own program.
func (s *state) process(host string) (Process, bool) {
	if i := s.find(host, ""); i >= 0 {
		return s.Processes[i], true
	}
	return Process{}, false
}

// find returns the index of the process, -1 if there is none.
func (s *state) find(host, program string) int {
	return slices.IndexFunc(s.Processes, func(p Process) bool { return p.Host == host && p.Program == program })
}

func (s *state) setProcess(p Process) {
	if i := s.find(p.Host, p.Program); i >= 0 {
		s.Processes[i] = p
		return
	}
	s.Processes = append(s.Processes, p)
}

// readState returns fs.ErrNotExist if there is no lab in the directory.
func readState(directory string) (state, error) {
	s, err := readRemains(directory)
	if err == nil {
		err = s.config().Check()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("read %s: %w", filepath.Join(directory, stateFile), err)
	}
	return s, err
}

// readRemains returns what a state file tells, unchecked, for taking the lab
// down: another version may have written it. With an error it returns what it
// could read; that is fs.ErrNotExist if there is no lab in the directory.
func readRemains(directory string) (state, error) {
	var s state
	text, err := os.ReadFile(filepath.Join(directory, stateFile))
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(text, &s)
}

// write replaces the state file as a whole.
func (s *state) write(directory string) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	begun := filepath.Join(directory, newStateFile)
	if err := os.WriteFile(begun, append(text, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(begun, filepath.Join(directory, stateFile))
}

// A lock keeps all but one process from changing a lab.
type lock struct{ file *os.File }

// acquire takes the lock of the lab in the directory, or returns ErrBusy with
// the PID of who has it. The lock ends with the process.
func acquire(directory string) (*lock, error) {
	path := directory + ".lock"
	for {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, err
		}
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the last lab has just gone, and taken the directory along
		}
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			defer file.Close()
			if !errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("lock %s: %w", path, err)
			}
			owner, _ := os.ReadFile(path)
			return nil, fmt.Errorf("lab %s %w by process %s", filepath.Base(directory), ErrBusy, strings.TrimSpace(string(owner)))
		}
		// Whoever had the lock before may have removed the file since it was
		// opened: then it locks nothing.
		mine, err := file.Stat()
		if err != nil {
			file.Close()
			return nil, err
		}
		if now, err := os.Stat(path); err != nil || !os.SameFile(mine, now) {
			file.Close()
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			continue
		}
		return &lock{file}, writeOwner(file)
	}
}

func writeOwner(file *os.File) error {
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err := file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// release gives the lock back and leaves no file, nor the directory of all labs if
// it is the default one and this was the last.
func (l *lock) release() error {
	err := errors.Join(os.Remove(l.file.Name()), l.file.Close())
	if filepath.Dir(l.file.Name()) == DefaultDirectory {
		removeEmpty(DefaultDirectory)
	}
	return err
}

// removeEmpty removes the directory if there is nothing in it.
func removeEmpty(directory string) {
	// What is in use is refused, which is as it should be.
	_ = os.Remove(directory)
}
