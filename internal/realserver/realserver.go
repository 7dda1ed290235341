package realserver

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"slices"
)

// The refusals of a real server.
var (
	// ErrBusy: another process changes this real server, or keeps it.
	ErrBusy = errors.New("another fairlead realserver is at work here")
	// ErrNoVIP: neither the request nor an earlier set-up names a VIP.
	ErrNoVIP = errors.New("no VIP: name one: fairlead realserver up --vip 192.0.2.100")
)

// A Config says how to work on a real server.
type Config struct {
	// RunDir holds the file that remembers what the host was; it is made if there
	// is need.
	RunDir string
	// Root is where the files that survive a reboot go; "" is the system's.
	Root string
	// Executable is the program that their unit runs, an absolute path.
	Executable string
	// NotifySocket is the $NOTIFY_SOCKET of a service manager, or "".
	NotifySocket string
	Log          *slog.Logger // of Run
}

// A RealServer is a host that is set up, checked and undone. Its methods work in the
// network namespace of the calling thread, which is to be that of [Open].
type RealServer struct {
	config Config
	kernel *kernel
	set    setter
}

// Open returns the host of the network namespace of the calling thread. It changes
// nothing.
func Open(config Config) (*RealServer, error) {
	if config.Root == "" {
		config.Root = "/"
	}
	kernel, err := openKernel()
	if err != nil {
		return nil, err
	}
	r := &RealServer{config: config, kernel: kernel}
	r.set = r.setAny
	return r, nil
}

// Close lets go of the host and leaves it as it is.
func (r *RealServer) Close() { r.kernel.close() }

func (r *RealServer) setAny(s subject, value string) error {
	switch s.Kind {
	case kindFile, kindLink:
		return r.setEntry(s, value)
	case kindTunnel:
		return r.setTunnelEnd(s.Name, value)
	}
	return r.kernel.set(s, value)
}

// Persisted reports whether the host becomes a real server again at the next boot.
func (r *RealServer) Persisted() bool {
	_, err := os.Stat(r.path(persistedState))
	return err == nil
}

// A Plan is what is to be done on a host, and how it is now.
type Plan struct {
	Points []Point
	// Exposed are the VIPs that the host has had on lo while its ARP told where
	// they are: setting the sysctls does not take back what others have learnt.
	Exposed Spec

	state   state // as it will be remembered
	files   []change
	changes []change
}

// Changes tells the steps to people, in order.
func (p *Plan) Changes() []string {
	var all []string
	for _, c := range p.changes {
		all = append(all, c.String())
	}
	return all
}

// load returns what is remembered of the host, and the state in the run directory,
// which is nil if there is none.
func (r *RealServer) load() (remembered state, saved *state, err error) {
	saved, err = loadState(r.config.RunDir)
	if err != nil {
		return state{}, nil, err
	}
	if saved != nil {
		remembered = *saved
		remembered.Before = slices.Clone(saved.Before)
		return remembered, saved, nil
	}
	if remembered, err = here(); err != nil {
		return state{}, nil, err
	}
	return remembered, nil, r.seed(&remembered)
}

// Plan returns what [RealServer.Up] would do. It changes nothing and needs no
// privileges.
func (r *RealServer) Plan(request Request, persist bool) (*Plan, error) {
	remembered, _, err := r.load()
	if err != nil {
		return nil, err
	}
	return r.plan(remembered, request, persist)
}

func (r *RealServer) plan(remembered state, request Request, persist bool) (*Plan, error) {
	spec, routes, err := r.resolve(remembered, request)
	if err != nil {
		return nil, err
	}
	spec = remembered.VIPs.with(spec)
	s, err := r.look(spec)
	if err != nil {
		return nil, err
	}
	s.defaults = defaultsOf(routes)
	p := &Plan{Points: examine(spec, s), Exposed: exposedOf(spec, s), state: remembered}
	p.changes = changesOf(p.Points)
	p.state.VIPs = spec
	p.state.remember(p.Points)
	if !persist {
		return p, nil
	}
	files, err := r.persist(p.state)
	if err != nil {
		return nil, err
	}
	p.files, err = r.toFiles(files)
	p.changes = append(p.changes, p.files...)
	return p, err
}

// resolve returns the VIPs that the request names, those remembered if it names
// none, and the routes.
func (r *RealServer) resolve(remembered state, request Request) (Spec, []route, error) {
	if err := request.check(); err != nil {
		return nil, nil, err
	}
	if len(request.VIPs) == 0 {
		for _, v := range remembered.VIPs {
			request.VIPs = append(request.VIPs, v.Address)
		}
	}
	if len(request.VIPs) == 0 {
		return nil, nil, ErrNoVIP
	}
	routes, err := r.kernel.routes()
	if err != nil {
		return nil, nil, err
	}
	spec, err := request.resolve(remembered.VIPs, routes)
	return spec, routes, err
}

// Check returns all that must be so for the VIPs of the request, or for those that
// the host was set up with if it names none. It changes nothing and needs no
// privileges.
func (r *RealServer) Check(request Request) ([]Point, error) {
	remembered, _, err := r.load()
	if err != nil {
		return nil, err
	}
	spec, routes, err := r.resolve(remembered, request)
	if err != nil {
		return nil, err
	}
	s, err := r.look(spec)
	if err != nil {
		return nil, err
	}
	s.defaults = defaultsOf(routes)
	return examine(spec, s), nil
}

// Up sets the host up for the VIPs of the request, besides those that it has
// already, and with persist writes the files that make all of them survive a
// reboot. It is all or nothing: if a step fails, those before it are undone. What a
// step changes is remembered before, so that [RealServer.Down] takes back a set-up
// that was killed halfway, and doing it again completes it. Nothing is changed if
// there is an obstacle that only a person may remove.
func (r *RealServer) Up(request Request, persist bool) (*Plan, error) {
	lock, err := r.begin()
	if err != nil {
		return nil, err
	}
	defer lock.release()
	return r.up(request, persist)
}

// begin makes the run directory and takes the lock.
func (r *RealServer) begin() (*lock, error) {
	if err := checkPrivileges(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(r.config.RunDir, 0o755); err != nil {
		return nil, fmt.Errorf("make run directory: %w", err)
	}
	return takeLock(r.config.RunDir)
}

func (r *RealServer) up(request Request, persist bool) (*Plan, error) {
	remembered, saved, err := r.load()
	if err != nil {
		return nil, err
	}
	p, err := r.plan(remembered, request, persist)
	if err != nil {
		return nil, err
	}
	if err := refusal(p.Points); err != nil {
		return nil, err
	}
	if err := p.state.save(r.config.RunDir); err != nil {
		return nil, err
	}
	if err := apply(p.changes, r.set); err != nil {
		return nil, errors.Join(fmt.Errorf("set up real server: %w", err), saved.save(r.config.RunDir))
	}
	return p, nil
}

// refusal returns an error that tells every obstacle, and nil if there is none.
func refusal(points []Point) error {
	var errs []error
	for _, p := range obstaclesOf(points) {
		errs = append(errs, fmt.Errorf("%s: %s (is: %s, want: %s): `%s`", p.Name, p.Why, p.Found, p.Want, p.Mend))
	}
	return errors.Join(errs...)
}

// Down takes the VIPs away, all if none are named, and puts back every value that
// the others do not need, exactly as it was before [RealServer.Up]. With persist
// it removes the files too, or writes them anew for the VIPs that are left. It is
// all or nothing, and returns what it did; nothing if there is nothing to undo.
func (r *RealServer) Down(vips []netip.Addr, persist bool) ([]string, error) {
	lock, err := r.begin()
	if err != nil {
		return nil, err
	}
	defer lock.release()
	remembered, _, err := r.load()
	if err != nil {
		return nil, err
	}
	for _, vip := range vips {
		if remembered.VIPs.index(vip) < 0 {
			return nil, fmt.Errorf("take VIP %s away: the host was not set up for it", vip)
		}
	}
	left := remembered
	left.VIPs, left.Before = nil, nil
	if len(vips) > 0 {
		left.VIPs = remembered.VIPs.without(vips)
	}
	changes, err := r.back(remembered, &left)
	if err != nil {
		return nil, err
	}
	if persist {
		files, err := r.persist(left)
		if err != nil {
			return nil, err
		}
		toFiles, err := r.toFiles(files)
		if err != nil {
			return nil, err
		}
		changes = append(changes, toFiles...)
	}
	if err := apply(changes, r.set); err != nil {
		return nil, fmt.Errorf("undo real server: %w", err)
	}
	done := (&Plan{changes: changes}).Changes()
	if len(left.VIPs) == 0 {
		return done, (*state)(nil).save(r.config.RunDir)
	}
	return done, left.save(r.config.RunDir)
}

// back returns the changes that put back what the VIPs that are left do not need,
// the last first, and notes what they need.
func (r *RealServer) back(remembered state, left *state) ([]change, error) {
	s, err := r.look(remembered.VIPs)
	if err != nil {
		return nil, err
	}
	var changes []change
	for _, b := range slices.Backward(remembered.Before) {
		if left.VIPs.uses(b.subject) {
			left.Before = append(left.Before, b)
			continue
		}
		found, err := s.value(b)
		if err != nil {
			return nil, err
		}
		if found != b.Value {
			changes = append(changes, change{b.subject, found, b.Value, "as it was before"})
		}
	}
	slices.Reverse(left.Before)
	return append(changes, leftEnds(s, left.VIPs)...), nil
}

// leftEnds returns the changes of tunnel ends that other VIPs still need.
func leftEnds(s snapshot, left Spec) []change {
	var changes []change
	for _, name := range left.interfaces(false) {
		want := left.tunnelEnd(name, s.addresses)
		if found := s.tunnels[name]; left.hasTunnel(name) && found != want && found != anotherProgram {
			changes = append(changes, change{tunnelSubject(name), found, want, "unwrap packets of tunnels to the other VIPs"})
		}
	}
	return changes
}

// value returns how a subject is that was once otherwise. A sysctl that went away
// with its interface is as it was, and so is an address that was there before: if
// someone took it away since, it is not ours to bring back.
func (s *snapshot) value(before setting) (string, error) {
	if before.Kind == kindSysctl {
		value, err := readSysctl(before.Name)
		if errors.Is(err, fs.ErrNotExist) {
			return before.Value, nil
		}
		return value, err
	}
	if before.Kind == kindTunnel {
		if found, there := s.tunnels[before.Name]; there && found != anotherProgram {
			return found, nil
		}
		return before.Value, nil
	}
	there := slices.ContainsFunc(s.addresses, func(a address) bool {
		return a.name == loopback && a.prefix.String() == before.Name
	})
	if there {
		return present, nil
	}
	return before.Value, nil
}
