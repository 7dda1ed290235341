package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/fairlead-lb/fairlead/internal/journey"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// keptFrames bounds what a demonstration keeps of the captured frames: those of
// some ten thousand requests.
const keptFrames = 400_000

// nextHopTimeout bounds the director's search for its real servers.
const nextHopTimeout = 10 * time.Second

// Options say what a demonstration does.
type Options struct {
	Requests  int
	Scheduler lvs.Scheduler
	Weights   []int // one for each real server
	Family    Family
}

// A Report is a demonstration's result, for programs.
type Report struct {
	Requests               Requests       `json:"requests"`
	RepliesThroughDirector int            `json:"replies_through_director"`
	Journey                []journey.Step `json:"journey"`
	Checks                 []Check        `json:"checks"`
	OK                     bool           `json:"ok"`
}

// Requests are counted at the client.
type Requests struct {
	Sent     int            `json:"sent"`
	Answered int            `json:"answered"`
	ByServer map[string]int `json:"by_server"`
}

// A Demonstration is a report with all that it was made of.
type Demonstration struct {
	Report
	Story      journey.Story
	Listing    string // ipvsadm -Ln
	Statistics string // ipvsadm -Ln --stats
	Frames     []journey.Frame
	// Seen counts all frames; Frames has the first of them if there were too
	// many to keep.
	Seen int
}

// Demonstrate adds a virtual service to the director through ipvsadm's command
// line, sends requests through it and checks what came of them. It wants a lab
// whose director has no service yet and where nobody knows a MAC address.
// Whether the checks were passed is the report's OK; the error is for what could
// not be tried. progress is told each step.
func (l *Lab) Demonstrate(ctx context.Context, options Options, progress func(string)) (Demonstration, error) {
	service := netip.AddrPortFrom(options.Family.VIP(), HTTPPort)
	tally := newTally(service, l.ports)
	observe := tally.observe
	var translated *translatedTally
	if l.state.Method.translates() {
		translated = newTranslatedTally(tally, l.state.Method, l.Servers())
		observe = translated.observe
	}
	capture, err := l.Capture(keptFrames, observe)
	if err != nil {
		return Demonstration{}, err
	}
	table, err := l.watchSwitch()
	if err != nil {
		_, lost := capture.Stop()
		return Demonstration{}, errors.Join(err, lost)
	}
	progress(fmt.Sprintf("adding service %s, scheduler %s", service, options.Scheduler))
	traffic := l.newTraffic(service)
	err = l.AddService(ctx, "-t", service, options)
	if err == nil {
		progress(fmt.Sprintf("sending %d requests", options.Requests))
		err = l.sendAll(ctx, service, options.Requests, &traffic, progress)
	}
	if err == nil {
		err = settle(ctx, capture)
	}
	frames, lost := capture.Stop()
	learnt, deaf := table.stop()
	if err := errors.Join(err, deaf); err != nil {
		return Demonstration{}, err
	}

	d := Demonstration{Frames: frames, Seen: capture.Seen()}
	d.Requests = Requests{traffic.sent, traffic.answered, traffic.byServer}
	d.RepliesThroughDirector = tally.repliesAtDirector
	if translated != nil {
		d.RepliesThroughDirector = translated.replies.left
	}
	d.Story, err = journey.Tell(frames, l.cast(service))
	if err != nil && !errors.Is(err, journey.ErrNoConnection) {
		return d, err
	}
	d.Story.Weave(frames, learnt, l.cast(service))
	d.Journey = append([]journey.Step{}, d.Story.Steps...)
	counted, err := l.readCounters(ctx, service, &d)
	if err != nil {
		return d, err
	}
	e := evidence{
		method: l.state.Method, options: options, servers: l.Servers(), traffic: traffic,
		tally: tally, translated: translated, counted: counted, captureLost: lost,
	}
	d.Checks = e.checks()
	d.OK = true
	for _, check := range d.Checks {
		d.OK = d.OK && check.OK
	}
	return d, nil
}

// Capture starts a capture on the wires of all hosts; see [journey.Start].
func (l *Lab) Capture(limit int, observe func(journey.Frame)) (*journey.Capture, error) {
	var wires []journey.Wire
	for _, p := range l.ports {
		wires = append(wires, journey.Wire{Host: p.Name, Interface: p.name})
	}
	var capture *journey.Capture
	err := l.within(Switch, func() (err error) {
		capture, err = journey.Start(wires, limit, observe)
		return err
	})
	return capture, err
}

// AddService adds a service of all real servers through ipvsadm's command line,
// and waits until the director knows the way to each. protocol is ipvsadm's
// option, -t or -u.
func (l *Lab) AddService(ctx context.Context, protocol string, service netip.AddrPort, options Options) error {
	return l.addService(ctx, Director, protocol, service, options, l.Servers())
}

// addService adds a service of some real servers to the director on the host.
func (l *Lab) addService(ctx context.Context, host, protocol string, service netip.AddrPort, options Options, servers []Host) error {
	_, err := l.Output(ctx, host, "ipvsadm", "-A", protocol, service.String(), "-s", string(options.Scheduler))
	if err != nil {
		return err
	}
	for i, server := range servers {
		method := l.state.Method
		address := netip.AddrPortFrom(server.Address(options.Family), method.ServerPort(service.Port()))
		arguments := []string{"-a", protocol, service.String(), "-r", address.String()}
		arguments = append(arguments, method.Options()...)
		_, err := l.Output(ctx, host, "ipvsadm", append(arguments, "-w", strconv.Itoa(options.Weights[i]))...)
		if err != nil {
			return err
		}
	}
	return l.awaitNextHops(ctx, host)
}

// awaitNextHops waits until the director on the host has a way to every real server.
func (l *Lab) awaitNextHops(ctx context.Context, host string) error {
	client := l.clientOf(host)
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, nextHopTimeout)
	defer cancel()
	var missing error
	err := poll(ctx, func() (bool, error) {
		services, err := client.Services(ctx)
		if err != nil {
			return false, err
		}
		missing = nil
		for _, service := range services {
			for _, server := range service.Servers {
				if !server.NextHop.Usable() {
					missing = fmt.Errorf("real server %s: %s", server.Address, server.NextHop.Problem)
				}
			}
		}
		return missing == nil, nil
	})
	if err != nil {
		return errors.Join(fmt.Errorf("wait for the director's next hops: %w", err), missing)
	}
	return nil
}

// settle waits until the last connections' ends have passed: until no frame has
// been seen for a tenth of a second, or ten seconds are over.
func settle(ctx context.Context, capture *journey.Capture) error {
	start := time.Now()
	changed, seen := start, -1
	return poll(ctx, func() (bool, error) {
		now := time.Now()
		if n := capture.Seen(); n != seen {
			seen, changed = n, now
		}
		return now.Sub(changed) > 100*time.Millisecond || now.Sub(start) > 10*time.Second, nil
	})
}

// readCounters fills in what ipvsadm lists, and returns how many connections the
// director has counted for the service.
func (l *Lab) readCounters(ctx context.Context, service netip.AddrPort, d *Demonstration) (uint64, error) {
	var err error
	if d.Listing, err = l.Output(ctx, Director, "ipvsadm", "-Ln"); err != nil {
		return 0, err
	}
	if d.Statistics, err = l.Output(ctx, Director, "ipvsadm", "-Ln", "--stats"); err != nil {
		return 0, err
	}
	client := l.DirectorClient()
	defer client.Close()
	status, err := client.Service(ctx, lvs.ServiceKey{Protocol: lvs.TCP, Address: service.Addr(), Port: service.Port()})
	return status.Counters.Connections, err
}
