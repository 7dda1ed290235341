package realserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/dataplane"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// DefaultTunnelPort is GUE's (IANA).
const DefaultTunnelPort = 6080

// A Tunnel is what a director wraps a VIP's packets in: "ipip", "gre", or "gue" with
// the UDP port that they come to, "gue:6080". "" is none: direct routing.
type Tunnel string

// ParseTunnel returns the tunnel of a type, with a port if it is gue.
func ParseTunnel(name string, port uint16) (Tunnel, error) {
	switch name {
	case "", "ipip", "gre":
		return Tunnel(name), nil
	case "gue":
		if port == 0 {
			return "", errors.New("tunnel port 0: want 1 to 65535")
		}
		return Tunnel("gue:" + strconv.Itoa(int(port))), nil
	}
	return "", fmt.Errorf("tunnel %q: want ipip, gue or gre", name)
}

// decode returns what the data plane calls the tunnel.
func (t Tunnel) decode() (lvs.Tunnel, error) {
	name, text, hasPort := strings.Cut(string(t), ":")
	switch {
	case name == "ipip" && !hasPort:
		return lvs.Tunnel{Type: lvs.IPIP}, nil
	case name == "gre" && !hasPort:
		return lvs.Tunnel{Type: lvs.GRE}, nil
	case name == "gue" && hasPort:
		port, err := strconv.ParseUint(text, 10, 16)
		if err == nil && port != 0 {
			return lvs.Tunnel{Type: lvs.GUE, Port: uint16(port)}, nil
		}
	}
	return lvs.Tunnel{}, fmt.Errorf("tunnel %q: want ipip, gre or gue:PORT", string(t))
}

// A tunnel end is told as one text, which is its value as a subject:
// "192.0.2.100=ipip to=198.51.100.11 from=any".

const (
	endAddresses = "to="
	endDirectors = "from="
	anyDirector  = "any"
	// anotherProgram is the value of an interface with an XDP program that is none of
	// ours.
	anotherProgram = "another XDP program"
)

// tunnelEnd returns what the interface's tunnel end is to be, absent if its VIPs come
// without tunnels. The host's own addresses are those that are no VIP.
func (s Spec) tunnelEnd(name string, addresses []address) string {
	var words []string
	directors := anyDirector
	for _, v := range s {
		if v.Interface == name && v.Tunnel != "" {
			words = append(words, fmt.Sprintf("%s=%s", v.Address, v.Tunnel))
			if v.Directors != "" {
				directors = v.Directors
			}
		}
	}
	if len(words) == 0 {
		return absent
	}
	slices.Sort(words)
	var own []string
	for _, a := range addresses {
		host := a.prefix.Addr()
		if a.name != loopback && !host.IsLinkLocalUnicast() && s.index(host) < 0 {
			own = append(own, host.String())
		}
	}
	slices.Sort(own)
	words = append(words, endAddresses+strings.Join(slices.Compact(own), ","), endDirectors+directors)
	return strings.Join(words, " ")
}

// hasTunnel reports whether a VIP's packets come through a tunnel on the interface.
func (s Spec) hasTunnel(name string) bool {
	return slices.ContainsFunc(s, func(v VIP) bool { return v.Interface == name && v.Tunnel != "" })
}

// checkDirectors refuses VIPs on one interface that different directors may send to.
func (s Spec) checkDirectors() error {
	of := map[string]VIP{}
	for _, v := range s {
		if v.Tunnel == "" {
			continue
		}
		if other, there := of[v.Interface]; there && other.Directors != v.Directors {
			return fmt.Errorf("VIPs %s and %s on %s: their tunnels are to come from different directors (%s; %s): name the same for both",
				other.Address, v.Address, v.Interface, orAny(other.Directors), orAny(v.Directors))
		}
		of[v.Interface] = v
	}
	return nil
}

func orAny(directors string) string {
	if directors == "" {
		return anyDirector
	}
	return directors
}

// parseTunnelEnd reads what tunnelEnd wrote.
func parseTunnelEnd(text string) (dataplane.TunnelEnd, error) {
	end := dataplane.TunnelEnd{VIPs: map[netip.Addr]lvs.Tunnel{}}
	for _, word := range strings.Fields(text) {
		var err error
		if list, ok := strings.CutPrefix(word, endAddresses); ok {
			end.Addresses, err = parseAddresses(list)
		} else if list, ok := strings.CutPrefix(word, endDirectors); ok {
			if list != anyDirector {
				end.Directors, err = parseAddresses(list)
			}
		} else {
			err = parseEndVIP(end.VIPs, word)
		}
		if err != nil {
			return end, fmt.Errorf("tunnel end %q: %w", text, err)
		}
	}
	return end, nil
}

func parseEndVIP(vips map[netip.Addr]lvs.Tunnel, word string) error {
	name, tunnel, _ := strings.Cut(word, "=")
	vip, err := netip.ParseAddr(name)
	if err != nil {
		return err
	}
	vips[vip], err = Tunnel(tunnel).decode()
	return err
}

func parseAddresses(list string) ([]netip.Addr, error) {
	var all []netip.Addr
	for _, text := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' }) {
		address, err := netip.ParseAddr(text)
		if err != nil {
			return nil, err
		}
		all = append(all, address)
	}
	return all, nil
}

func tunnelSubject(name string) subject { return subject{kindTunnel, name} }

// examineTunnel looks whether the packets of tunnels are unwrapped as they are to be.
func examineTunnel(name string, spec Spec, s snapshot) []Point {
	want, found := spec.tunnelEnd(name, s.addresses), s.tunnels[name]
	_, there := s.links[name]
	if !there || want == absent && (found == absent || found == anotherProgram) {
		return nil
	}
	c := change{subject: tunnelSubject(name), from: found, to: want, why: "unwrap packets of tunnels to the VIPs"}
	p := Point{Name: c.subject.String(), Found: found, Want: want, OK: found == want, seen: setting{c.subject, absent}}
	switch {
	case p.OK:
	case found == anotherProgram:
		p.Why = fmt.Sprintf("%s has an XDP program already, a director's for instance, and packets of tunnels to the VIPs would stay wrapped", name)
		p.Mend = fmt.Sprintf("ip link set dev %s xdp off", name)
	default:
		p.Why = "packets of tunnels to the VIPs stay wrapped, or others than these are unwrapped: connections through the director get no answer"
		p.Mend, p.changes = c.command(), []change{c}
	}
	return []Point{p}
}

// An endRecord is a program of ours and what it was made of: the kernel tells the
// program's number alone.
type endRecord struct {
	Program uint32 `json:"program"`
	Value   string `json:"value"`
}

func (r *RealServer) endRecordPath(name string) string {
	return filepath.Join(r.config.RunDir, "tunnel-"+name+".json")
}

// endRecords returns the programs that are or were to be attached to an interface.
func (r *RealServer) endRecords(name string) ([]endRecord, error) {
	text, err := os.ReadFile(r.endRecordPath(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var records []endRecord
	if err == nil {
		err = json.Unmarshal(text, &records)
	}
	if err != nil {
		return nil, fmt.Errorf("read what was attached to %s: %w", name, err)
	}
	return records, nil
}

func (r *RealServer) writeEndRecords(name string, records []endRecord) error {
	if len(records) == 0 {
		if err := os.Remove(r.endRecordPath(name)); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	text, err := json.Marshal(records)
	if err != nil {
		return err
	}
	return writeFile(r.endRecordPath(name), string(text)+"\n")
}

// look reads what matters to the spec, tunnel ends included.
func (r *RealServer) look(spec Spec) (snapshot, error) {
	s, err := r.kernel.look(spec)
	if err != nil {
		return s, err
	}
	s.tunnels = map[string]string{}
	for _, name := range spec.interfaces(false) {
		if _, there := s.links[name]; !there {
			continue
		}
		if s.tunnels[name], err = r.tunnelEndOf(name); err != nil {
			return s, err
		}
	}
	return s, nil
}

// tunnelEndOf returns the value of an interface's tunnel end.
func (r *RealServer) tunnelEndOf(name string) (string, error) {
	link, err := r.kernel.netlink.LinkByName(name)
	if err != nil {
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	xdp := link.Attrs().Xdp
	if xdp == nil || !xdp.Attached {
		return absent, nil
	}
	records, err := r.endRecords(name)
	if err != nil {
		return "", err
	}
	for _, record := range records {
		if record.Program == xdp.ProgId {
			return record.Value, nil
		}
	}
	return anotherProgram, nil
}

// setTunnelEnd is the setter of tunnel ends. The new program takes the former one's
// place in one step.
func (r *RealServer) setTunnelEnd(name, value string) error {
	found, err := r.tunnelEndOf(name)
	if err != nil || found == value {
		return err
	}
	link, err := r.kernel.netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	if value == absent {
		if found != anotherProgram {
			if err := netlink.LinkSetXdpFdWithFlags(link, -1, attachedMode(link)); err != nil {
				return fmt.Errorf("detach the tunnel end from %s: %w", name, err)
			}
		}
		return r.writeEndRecords(name, nil)
	}
	end, err := parseTunnelEnd(value)
	if err != nil {
		return err
	}
	program, err := dataplane.LoadTunnelEnd(end)
	if errors.Is(err, unix.EPERM) {
		err = fmt.Errorf("%w: run this as root, or with CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON", err)
	}
	if err != nil {
		return err
	}
	defer program.Close()
	return r.attachTunnelEnd(link, program, endRecord{Value: value})
}

// attachTunnelEnd notes the program before it attaches it: who is killed in between
// leaves none that nobody knows.
func (r *RealServer) attachTunnelEnd(link netlink.Link, program *dataplane.TunnelEndProgram, record endRecord) error {
	name := link.Attrs().Name
	records, err := r.endRecords(name)
	if err != nil {
		return err
	}
	if record.Program, err = program.ID(); err != nil {
		return err
	}
	if err := r.writeEndRecords(name, append([]endRecord{record}, records...)); err != nil {
		return err
	}
	modes := []int{unix.XDP_FLAGS_DRV_MODE | unix.XDP_FLAGS_UPDATE_IF_NOEXIST, unix.XDP_FLAGS_SKB_MODE | unix.XDP_FLAGS_UPDATE_IF_NOEXIST}
	if mode := attachedMode(link); mode != 0 {
		modes = []int{mode}
	}
	var errs []error
	for _, mode := range modes {
		if err := netlink.LinkSetXdpFdWithFlags(link, program.FD(), mode); err != nil {
			errs = append(errs, err)
			continue
		}
		return r.writeEndRecords(name, []endRecord{record})
	}
	return fmt.Errorf("attach the tunnel end to %s: %w", name, errors.Join(errs...))
}

// attachedMode returns the flag of the mode in which an interface has a program, 0 if
// it has none.
func attachedMode(link netlink.Link) int {
	xdp := link.Attrs().Xdp
	switch {
	case xdp == nil || !xdp.Attached:
		return 0
	case xdp.AttachMode == nlXDPAttachedDriver:
		return unix.XDP_FLAGS_DRV_MODE
	}
	return unix.XDP_FLAGS_SKB_MODE
}

// nlXDPAttachedDriver is XDP_ATTACHED_DRV of linux/if_link.h.
const nlXDPAttachedDriver = 1
