package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A Lab is a network in namespaces. It is safe for concurrent use.
type Lab struct {
	directory  string
	hosts      []Host // without the switch
	ports      []port
	namespaces map[string]namespace

	mutex sync.Mutex // one change at a time
	state state
	lock  *lock // nil unless this process owns the lab
}

// Up builds a lab and starts all its programs. The lab belongs to the calling
// process until [Lab.Down] takes it down or [Lab.Keep] lets it outlive the
// process. What a killed process left under that name is cleared away first; a
// lab that was kept is ErrRunning, one that another process owns ErrBusy. If Up
// fails or ctx ends, nothing is left. progress is told each step.
func Up(ctx context.Context, config Config, progress func(string)) (*Lab, error) {
	l, err := newLab(ctx, config)
	if err != nil {
		return nil, err
	}
	if err := l.bringUp(ctx, progress); err != nil {
		return nil, errors.Join(err, l.Down(context.WithoutCancel(ctx)))
	}
	return l, nil
}

// describe returns a lab that has no namespaces yet.
func describe(directory string, s state) *Lab {
	hosts := hostsOf(s.config())
	return &Lab{
		directory:  directory,
		hosts:      hosts,
		ports:      portsOf(hosts, s.Topology),
		namespaces: map[string]namespace{},
		state:      s,
	}
}

// newLab takes the lock and an empty directory with a state file.
func newLab(ctx context.Context, config Config) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("a lab makes network namespaces: run this as root")
	}
	if err := config.Check(); err != nil {
		return nil, err
	}
	directory, err := config.path()
	if err != nil {
		return nil, err
	}
	lock, err := acquire(directory)
	if err != nil {
		return nil, err
	}
	l := describe(directory, state{
		Servers: config.Servers, Topology: config.Topology, Method: config.Method, Bystander: config.Bystander, Binary: config.Binary,
	})
	l.lock = lock
	if err := l.prepareDirectory(ctx); err != nil {
		return nil, errors.Join(err, lock.release())
	}
	return l, nil
}

func (l *Lab) prepareDirectory(ctx context.Context) error {
	if err := clearLeftover(ctx, l.directory); err != nil {
		return err
	}
	if err := os.MkdirAll(l.directory, 0o700); err != nil {
		return err
	}
	// The state file comes first: it marks the directory as a lab's.
	return l.state.write(l.directory)
}

// clearLeftover takes down what a process that is gone has left in the
// directory, but not a lab that was kept.
func clearLeftover(ctx context.Context, directory string) error {
	// Of a state that can't be read, all goes that is found without it.
	left, _ := readRemains(directory)
	if left.Kept {
		l := describe(directory, left)
		if err := errors.Join(l.openNamespaces(), l.Close()); err == nil {
			return fmt.Errorf("lab %s %w: use it, take it down with `fairlead lab down --name %[1]s`, or choose another --name",
				filepath.Base(directory), ErrRunning)
		}
	}
	return remove(ctx, directory, left)
}

// prepareFiles makes the directories, and the commands that the hosts have.
func (l *Lab) prepareFiles() error {
	directories := []string{"netns", "bin", "log"}
	for _, host := range l.hosts {
		directories = append(directories, filepath.Join("run", host.Name))
	}
	for _, directory := range directories {
		if err := os.MkdirAll(filepath.Join(l.directory, directory), 0o700); err != nil {
			return err
		}
	}
	for _, link := range []string{"fairlead", "ipvsadm", "ipvsadm-save", "ipvsadm-restore"} {
		if err := os.Symlink(l.state.Binary, filepath.Join(l.binDirectory(), link)); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) bringUp(ctx context.Context, progress func(string)) error {
	if err := l.prepareFiles(); err != nil {
		return err
	}
	progress("building the network: " + l.inventory())
	if err := l.build(ctx); err != nil {
		return err
	}
	progress("starting the real servers and the director")
	for _, host := range l.hosts {
		if isServer(host.Name) {
			if err := l.Start(ctx, host.Name); err != nil {
				return err
			}
		}
	}
	if err := l.Start(ctx, Director); err != nil || l.state.Method != FullNAT {
		return err
	}
	return l.addLocalAddresses(ctx)
}

// addLocalAddresses tells the director where clients come from for real servers.
func (l *Lab) addLocalAddresses(ctx context.Context) error {
	client := l.DirectorClient()
	defer client.Close()
	for _, family := range []Family{IPv4, IPv6} {
		local := lvs.LocalAddress{Prefix: hostPrefix(family.LocalAddress()), Ports: lvs.DefaultLocalPorts}
		if err := client.AddLocalAddress(ctx, local); err != nil {
			return err
		}
	}
	return nil
}

// inventory names what is built.
func (l *Lab) inventory() string {
	text := "a switch, a client, "
	if edge(l.hosts).Name == Router {
		text += "a router, "
	}
	text += fmt.Sprintf("a director, %d real servers", l.state.Servers)
	if l.state.Bystander {
		text += ", another host"
	}
	return text
}

// Open returns the lab of that name, which another process built. It is
// ErrNotRunning if there is none.
func Open(config Config) (*Lab, error) {
	directory, err := config.path()
	if err != nil {
		return nil, err
	}
	s, err := readState(directory)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notRunning(directory)
	}
	if err != nil {
		return nil, err
	}
	l := describe(directory, s)
	if err := l.openNamespaces(); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", notRunning(directory), err), l.Close())
	}
	return l, nil
}

// openNamespaces opens the namespaces of all hosts; one that is missing is an error.
func (l *Lab) openNamespaces() error {
	for _, name := range l.allHosts() {
		ns, err := openNamespace(l.namespacePath(name))
		if err != nil {
			return err
		}
		l.namespaces[name] = ns
	}
	return nil
}

func notRunning(directory string) error {
	name := filepath.Base(directory)
	return fmt.Errorf("lab %s %w: build it with `fairlead lab up --name %[1]s`", name, ErrNotRunning)
}

// Keep lets the lab outlive this process, and closes it.
func (l *Lab) Keep() error {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.state.Kept = true
	if err := l.state.write(l.directory); err != nil {
		return err
	}
	return errors.Join(l.Close(), l.releaseLock())
}

// Close lets go of the lab without touching it.
func (l *Lab) Close() error {
	var errs []error
	for name, ns := range l.namespaces {
		errs = append(errs, ns.close())
		delete(l.namespaces, name)
	}
	return errors.Join(errs...)
}

// Down takes down the lab that this process owns: its processes, the director's
// data plane, namespaces, mounts and files. It does as much as it can and
// returns all that went wrong.
func (l *Lab) Down(ctx context.Context) error {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return errors.Join(l.Close(), remove(ctx, l.directory, l.state), l.releaseLock())
}

func (l *Lab) releaseLock() error {
	if l.lock == nil {
		return nil
	}
	lock := l.lock
	l.lock = nil
	return lock.release()
}

// Down takes down the lab of that name, also what is left of one that was not
// built or taken down to the end. It is ErrNotRunning if there is nothing, and
// ErrBusy if the lab belongs to a running process.
func Down(ctx context.Context, config Config) (err error) {
	directory, err := config.path()
	if err != nil {
		return err
	}
	if _, err := os.Stat(directory); errors.Is(err, fs.ErrNotExist) {
		return notRunning(directory)
	}
	lock, err := acquire(directory)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.release()) }()
	left, _ := readRemains(directory) // else all goes that is found without it
	return remove(ctx, directory, left)
}

// change runs f while no one else changes the lab.
func (l *Lab) change(f func() error) (err error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.lock == nil {
		lock, err := acquire(l.directory)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, lock.release()) }()
		if l.state, err = readState(l.directory); err != nil {
			return err
		}
	}
	return f()
}

// Hosts returns client, director and real servers, in this order, and after them
// the router, if there is one.
func (l *Lab) Hosts() []Host { return slices.Clone(l.hosts) }

// Servers returns the real servers in the order of their numbers.
func (l *Lab) Servers() []Host {
	return slices.DeleteFunc(l.Hosts(), func(h Host) bool { return !isServer(h.Name) })
}

func (l *Lab) allHosts() []string {
	names := []string{Switch}
	for _, host := range l.hosts {
		names = append(names, host.Name)
	}
	return names
}

// A HostStatus is a host and its own program.
type HostStatus struct {
	Host
	MAC string `json:"mac"`
	// PID is the program's, 0 if the host has none.
	PID     int  `json:"pid,omitempty"`
	Running bool `json:"running"`
}

// Status returns the hosts as they are now.
func (l *Lab) Status() ([]HostStatus, error) {
	s, err := readState(l.directory)
	if err != nil {
		return nil, err
	}
	var all []HostStatus
	for _, host := range l.hosts {
		status := HostStatus{Host: host, MAC: host.MAC.String()}
		if p, ok := s.process(host.Name); ok {
			status.PID, status.Running = p.PID, p.Alive()
		}
		all = append(all, status)
	}
	return all, nil
}

// Within runs f on a thread in the host's network namespace. Sockets that f
// opens stay there; goroutines that it starts are elsewhere.
func (l *Lab) Within(host string, f func() error) error { return l.within(host, f) }

func (l *Lab) within(host string, f func() error) error {
	ns, err := l.namespace(host)
	if err != nil {
		return err
	}
	return ns.do(f)
}

// namespace returns ErrNoHost for a name that the lab does not have.
func (l *Lab) namespace(host string) (namespace, error) {
	ns, ok := l.namespaces[host]
	if !ok {
		have := strings.Join(slices.Sorted(maps.Keys(l.namespaces)), ", ")
		return ns, fmt.Errorf("host %q: %w: there are %s", host, ErrNoHost, have)
	}
	return ns, nil
}

func (l *Lab) namespacePath(host string) string { return filepath.Join(l.directory, "netns", host) }

func (l *Lab) runDirectory(host string) string { return filepath.Join(l.directory, "run", host) }

func (l *Lab) logPath(host string) string { return filepath.Join(l.directory, "log", host+".log") }

func (l *Lab) binDirectory() string { return filepath.Join(l.directory, "bin") }
