package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A Subject is the director that is examined; *api.Client is one.
type Subject interface {
	Status(ctx context.Context) (api.Status, error)
	Services(ctx context.Context) ([]lvs.ServiceStatus, error)
	Peers(ctx context.Context) ([]lvs.Peer, error)
	LocalAddresses(ctx context.Context) ([]lvs.LocalAddressStatus, error)
	Connections(ctx context.Context, visit func(lvs.Connection) error) error
}

// An examination is one visit. It has one frame under way at a time.
type examination struct {
	segments map[int]*segment   // by interface index
	attached []string           // interfaces that the data plane is attached to
	own      map[lvs.MAC]string // the director's interfaces
	vips     []netip.Addr
	services []lvs.ServiceStatus
	servers  []server // each address once
	peers    []lvs.Peer
	locals   []lvs.LocalAddressStatus
	names    *directory
	findings []Finding

	blamed    map[claim]bool      // told already
	missing   map[netip.Addr]bool // local addresses that the director was told to have not
	deceiving map[netip.Addr]bool // VIPs that somebody else claims
	// accepting are the real servers that were seen to accept a packet for the VIP,
	// and to keep it.
	accepting    map[lvs.ServiceKey][]lvs.RealServerStatus
	segmentSizes map[netip.Addr]int  // that real servers ask for
	measured     map[netip.Addr]bool // whose MTU is known
}

// A server is the host behind real servers of one address.
type server struct {
	address netip.Addr
	segment *segment // nil if there is no way to it
	gateway bool     // it is behind a router, which direct routing does not reach
	mac     lvs.MAC  // where the director sends its packets; zero without a next hop
}

// Examine examines the path of every virtual service of the director, whose host
// and network namespace must be those of the calling process. It returns what is
// wrong, nothing if all is well; the error is for what could not be examined.
func Examine(ctx context.Context, subject Subject) ([]Finding, error) {
	status, err := subject.Status(ctx)
	if err != nil {
		return nil, err
	}
	services, err := subject.Services(ctx)
	if err != nil {
		return nil, err
	}
	peers, err := subject.Peers(ctx)
	if err != nil {
		return nil, err
	}
	locals, err := subject.LocalAddresses(ctx)
	if err != nil {
		return nil, err
	}
	e := &examination{
		segments: map[int]*segment{}, services: services, peers: peers, locals: locals, missing: map[netip.Addr]bool{}, names: newDirectory(),
		blamed: map[claim]bool{}, deceiving: map[netip.Addr]bool{},
		accepting:    map[lvs.ServiceKey][]lvs.RealServerStatus{},
		segmentSizes: map[netip.Addr]int{}, measured: map[netip.Addr]bool{},
	}
	err = e.open(status.Interfaces, services)
	if err == nil {
		err = e.visit(ctx, subject, status)
	}
	return e.findings, errors.Join(err, e.close())
}

// visit examines the director first, then each VIP, and at last what only clients
// notice.
func (e *examination) visit(ctx context.Context, subject Subject, status api.Status) error {
	e.tellPeerFrames(status)
	if err := e.examineDevices(status.Interfaces); err != nil {
		return err
	}
	e.findSources()
	if err := e.callRoll(ctx); err != nil {
		return err
	}
	patients := patientsOf(e.services)
	for _, p := range patients {
		if err := e.examine(ctx, p); err != nil {
			return fmt.Errorf("examine %s: %w", p.vip, err)
		}
	}
	if err := e.examineClients(ctx, subject); err != nil {
		return err
	}
	for _, p := range patients {
		e.examineOverheard(ctx, p)
	}
	return nil
}

// examine looks for what deceives the neighbours first: what a neighbour has
// learnt is no fault of its own as long as someone teaches it.
func (e *examination) examine(ctx context.Context, p patient) error {
	if err := e.examineDirector(p); err != nil {
		return err
	}
	before := len(e.findings)
	if err := e.findImpostors(ctx, p); err != nil {
		return err
	}
	deceived := isWorse(e.findings[before:])
	before = len(e.findings)
	if err := e.examineServers(ctx, p); err != nil {
		return err
	}
	deceived = deceived || slices.ContainsFunc(e.findings[before:], func(f Finding) bool { return f.Check == ARPAnnounce })
	if !deceived {
		before = len(e.findings)
		if err := e.findDeceived(ctx, p); err != nil {
			return err
		}
		deceived = len(e.findings) > before
	}
	e.deceiving[p.vip] = deceived
	return nil
}

// isWorse reports whether one of the findings is more than told.
func isWorse(findings []Finding) bool { return Worst(findings) > Healthy }

func (e *examination) found(f Finding) { e.findings = append(e.findings, f) }

// open opens the segments that the data plane is attached to and those of the
// real servers.
func (e *examination) open(attached []api.Interface, services []lvs.ServiceStatus) error {
	for _, p := range patientsOf(services) {
		e.vips = append(e.vips, p.vip)
	}
	devices, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	e.own = map[lvs.MAC]string{}
	for _, device := range devices {
		if len(device.HardwareAddr) == len(lvs.MAC{}) && device.Flags&net.FlagLoopback == 0 {
			e.own[lvs.MAC(device.HardwareAddr)] = device.Name
		}
	}
	for _, i := range attached {
		e.attached = append(e.attached, i.Name)
		if err := e.openInterface(net.InterfaceByName(i.Name)); err != nil {
			return err
		}
	}
	for _, service := range services {
		for _, r := range service.Servers {
			if !isExamined(r) || slices.ContainsFunc(e.servers, func(s server) bool { return s.address == r.Address }) {
				continue
			}
			s := server{address: r.Address}
			if r.NextHop.Usable() {
				s.mac = r.NextHop.Destination
			}
			// A real server without a route is the director's to tell.
			if routes, err := netlink.RouteGet(r.Address.AsSlice()); err == nil && len(routes) > 0 {
				if err := e.openInterface(net.InterfaceByIndex(routes[0].LinkIndex)); err != nil {
					return err
				}
				s.segment, s.gateway = e.segments[routes[0].LinkIndex], routes[0].Gw != nil
			}
			e.servers = append(e.servers, s)
		}
	}
	return nil
}

func (e *examination) openInterface(device *net.Interface, err error) error {
	if err != nil {
		return fmt.Errorf("find interface: %w", err)
	}
	if e.segments[device.Index] != nil || device.Flags&net.FlagLoopback != 0 {
		return nil
	}
	s, err := openSegment(device)
	if err != nil {
		return err
	}
	e.segments[device.Index] = s
	return nil
}

func (e *examination) close() error {
	var errs []error
	for _, s := range e.segments {
		errs = append(errs, s.close())
	}
	return errors.Join(errs...)
}

// ordered returns the segments by interface index, so that findings come in the
// same order each time.
func (e *examination) ordered() []*segment {
	var all []*segment
	for _, s := range e.segments {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *segment) int { return a.device.Index - b.device.Index })
	return all
}

func (e *examination) server(address netip.Addr) (server, bool) {
	i := slices.IndexFunc(e.servers, func(s server) bool { return s.address == address })
	if i < 0 {
		return server{}, false
	}
	return e.servers[i], true
}

// host returns the host with its name, if the director knows it.
func (e *examination) host(ctx context.Context, h Host) Host {
	h.Name = e.names.name(ctx, h.Address)
	return h
}

// director returns the director as a host of the segment.
func (e *examination) director(s *segment, target netip.Addr) Host {
	return Host{Role: Director, Address: s.own(target, e.vips), MAC: s.mac.String()}
}

// examineDirector looks whether the director itself answers for the VIP.
func (e *examination) examineDirector(p patient) error {
	has, err := hasAddress(p.vip)
	if err != nil {
		return err
	}
	all := e.ordered()
	if has || len(all) == 0 {
		return nil
	}
	host := e.director(all[0], p.vip)
	command := fmt.Sprintf("ip address add %s/%d dev %s", p.vip, p.vip.BitLen(), all[0].device.Name)
	if p.vip.Is6() {
		command += " preferred_lft 0" // never the source of what the director says itself
	}
	e.found(Finding{
		Check: VIPMissing, Level: Error, Service: p.vip.String(), Host: host,
		What: fmt.Sprintf("the director has not the address %s", p.vip),
		Why:  "nobody answers when clients or the router ask for the MAC address of the VIP",
		Mend: []Remedy{{host, command}},
	})
	return nil
}
