package dataplane

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A TunnelEnd says which packets of tunnels a real server takes the outer headers
// off.
type TunnelEnd struct {
	// VIPs are the destinations of inner packets, and the one tunnel that each one's
	// come through; its checksum is of no concern, as one that is there is verified.
	VIPs map[netip.Addr]lvs.Tunnel
	// Addresses are the host's own: the destinations of outer packets.
	Addresses []netip.Addr
	// Directors may send; all may if there are none.
	Directors []netip.Addr
}

// A TunnelEndProgram is the XDP program of a tunnel end, to be attached to an
// interface. It holds its configuration: another one is another program.
type TunnelEndProgram struct{ objects realserverObjects }

// LoadTunnelEnd loads a program. The caller closes it; it lives on where it is
// attached.
func LoadTunnelEnd(end TunnelEnd) (*TunnelEndProgram, error) {
	p := &TunnelEndProgram{}
	if err := loadRealserverObjects(&p.objects, nil); err != nil {
		return nil, fmt.Errorf("load the tunnel end: %w", err)
	}
	if err := p.configure(end); err != nil {
		return nil, errors.Join(fmt.Errorf("configure the tunnel end: %w", err), p.Close())
	}
	return p, nil
}

func (p *TunnelEndProgram) configure(end TunnelEnd) error {
	for vip, tunnel := range end.VIPs {
		value := realserverEndVip{Type: realserverTunnelType(tunnel.Type)}
		if tunnel.Type == lvs.GUE {
			value.Port = toPort(tunnel.Port)
		}
		if err := p.objects.EndVips.Put(toAddress(vip), value); err != nil {
			return fmt.Errorf("enter VIP %s: %w", vip, err)
		}
	}
	for m, addresses := range map[*ebpf.Map][]netip.Addr{
		p.objects.EndAddresses: end.Addresses, p.objects.EndDirectors: end.Directors,
	} {
		for _, address := range addresses {
			if err := m.Put(toAddress(address), uint32(1)); err != nil {
				return fmt.Errorf("enter address %s: %w", address, err)
			}
		}
	}
	return p.objects.EndSettings.Put(uint32(0), realserverEndPolicy{Directors: uint32(len(end.Directors))})
}

// FD returns the program's file descriptor, which stays the program's.
func (p *TunnelEndProgram) FD() int { return p.objects.Realserver.FD() }

// ID returns the kernel's number of the program, by which an interface names it.
func (p *TunnelEndProgram) ID() (uint32, error) {
	info, err := p.objects.Realserver.Info()
	if err != nil {
		return 0, fmt.Errorf("look at the tunnel end: %w", err)
	}
	id, ok := info.ID()
	if !ok {
		return 0, errors.New("look at the tunnel end: the kernel does not tell its number")
	}
	return uint32(id), nil
}

// Close lets go of the program.
func (p *TunnelEndProgram) Close() error { return p.objects.Close() }

// endNames name what becomes of a packet at a tunnel end.
var endNames = [...]string{
	realserverEndVerdictEND_OTHER:        "other",
	realserverEndVerdictEND_DECAPSULATED: "decapsulated",
	realserverEndVerdictEND_DIRECTOR:     "not-a-director",
	realserverEndVerdictEND_FRAGMENT:     "fragment",
	realserverEndVerdictEND_OPTIONS:      "options",
	realserverEndVerdictEND_CHECKSUM:     "checksum",
	realserverEndVerdictEND_CONGESTION:   "congestion",
	realserverEndVerdictEND_ADJUST:       "adjust",
}

// Counts returns how many packets became what: "decapsulated" went up the stack
// without their outer headers; "other", "not-a-director", "fragment" and "options"
// went to the host as they came, "checksum", "congestion" and "adjust" were dropped.
func (p *TunnelEndProgram) Counts() (map[string]uint64, error) {
	counts := map[string]uint64{}
	for v, name := range endNames {
		var perCPU []uint64
		if err := p.objects.EndVerdicts.Lookup(uint32(v), &perCPU); err != nil {
			return nil, fmt.Errorf("read what became of a tunnel's packets: %w", err)
		}
		for _, n := range perCPU {
			counts[name] += n
		}
	}
	return counts, nil
}

// Run runs the program on one frame, as if it had come in on loopback, and returns
// the XDP action and the frame that came out.
func (p *TunnelEndProgram) Run(frame []byte) (action uint32, out []byte, err error) {
	return runProgram(p.objects.Realserver, frame, 1)
}
