package doctor

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A Level is how bad a finding is.
type Level uint8

// The levels, from good to bad. Their numbers are exit statuses.
const (
	Healthy Level = iota
	Warning       // clients are served, but not as they could be
	Error         // clients are not served, or not by the director's choice
)

// String returns "healthy", "warning" or "error".
func (l Level) String() string {
	switch l {
	case Healthy:
		return "healthy"
	case Warning:
		return "warning"
	case Error:
		return "error"
	}
	return fmt.Sprintf("Level(%d)", uint8(l))
}

// MarshalText returns what String does.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText takes the three names.
func (l *Level) UnmarshalText(text []byte) error {
	for level := Healthy; level <= Error; level++ {
		if level.String() == string(text) {
			*l = level
			return nil
		}
	}
	return fmt.Errorf("level %q: want healthy, warning or error", text)
}

// The checks. The names are part of the command's interface.
const (
	ARPIgnore   = "arp-ignore"     // a real server answers ARP for the VIP
	VIPExposed  = "vip-exposed"    // a real server answers neighbour solicitations for it
	ForeignVIP  = "foreign-vip"    // a host that is no real server answers for it
	ARPAnnounce = "arp-announce"   // a real server names the VIP in ARP requests
	NoVIP       = "no-vip"         // a real server accepts no packet for the VIP
	Refused     = "service-closed" // it accepts them, and nobody listens
	WrongMAC    = "wrong-mac"      // the director sends to a MAC address that is not the real server's
	SameAddress = "same-address"   // two hosts have a real server's address
	NoNextHop   = "no-next-hop"    // the director has no way to a real server
	StaleARP    = "stale-arp"      // a neighbour sends the VIP's packets elsewhere
	VIPMissing  = "vip-missing"    // the director itself has not the VIP
	// RPFilter is about a real server that takes the VIP's packets from some clients,
	// and drops those of others: its way back to them is another interface.
	RPFilter = "rp-filter"
	// MTU is about a real server that takes small packets, and no full-size ones.
	MTU = "mtu"
	// ProxyARP is about a host that answers for addresses that nobody has.
	ProxyARP = "proxy-arp"
	// SecondDirector is about a real server that sends the VIP's packets on to
	// another one.
	SecondDirector = "second-director"
	// NoWayBack is about a real server whose answers do not reach clients.
	NoWayBack = "no-way-back"
	// NoRouteBack is about a real server whose answers the director has to translate, and
	// which do not pass it.
	NoRouteBack = "no-route-back"
	// LocalMissing is about an address that FullNAT's clients come from, which the director
	// has not.
	LocalMissing = "local-address-missing"
	// Unproved is told of a real server that may have the VIP, and says nothing.
	Unproved = "unproved"
	// VIPSource is about a director that speaks in the VIP's name to a real server.
	VIPSource = "vip-as-source"
	// GenericXDP is about an interface that could run XDP in its driver.
	GenericXDP = "xdp-generic"
	// Aggregation is about an interface that joins packets before XDP.
	Aggregation = "aggregation"
)

// A Role is what a host is to the director.
type Role string

// The roles.
const (
	Director   Role = "director"
	RealServer Role = "real server"
	Neighbour  Role = "neighbour" // any other host of the segment
)

// A Host is known by what the director sees of it. Address is the zero Addr, and
// Name and MAC are "", where that is not known.
type Host struct {
	Role    Role       `json:"role"`
	Name    string     `json:"name,omitempty"` // by the director's hosts file or name server
	Address netip.Addr `json:"address,omitzero"`
	MAC     string     `json:"mac,omitempty"`
}

// String returns "real server web1 192.0.2.11 (02:00:00:00:00:11)".
func (h Host) String() string {
	text := string(h.Role)
	if h.Name != "" {
		text += " " + h.Name
	}
	if h.Address.IsValid() {
		text += " " + h.Address.String()
	}
	if h.MAC != "" {
		text += " (" + h.MAC + ")"
	}
	return text
}

// A Remedy is a shell command and the host to run it on.
type Remedy struct {
	Host    Host   `json:"host"`
	Command string `json:"command"`
}

// A Finding is one thing that is wrong.
type Finding struct {
	Check   string `json:"check"`
	Level   Level  `json:"level"`
	Service string `json:"service"` // the VIP, or the virtual service; "" for the director as a whole
	Host    Host   `json:"host"`    // whose fault it is
	What    string `json:"what"`
	Why     string `json:"why"`
	// Mend are the commands that mend it, in their order.
	Mend []Remedy `json:"mend"`
}

// Worst returns the worst level of the findings, Healthy if there are none.
func Worst(findings []Finding) Level {
	worst := Healthy
	for _, f := range findings {
		worst = max(worst, f.Level)
	}
	return worst
}

// A patient is a virtual address with all that the director says of it.
type patient struct {
	vip      netip.Addr
	services []lvs.ServiceStatus
}

// patientsOf returns each VIP once, in the order of the services.
func patientsOf(services []lvs.ServiceStatus) []patient {
	var patients []patient
	for _, s := range services {
		if s.Mark != 0 {
			continue // no VIP of its own
		}
		i := slices.IndexFunc(patients, func(p patient) bool { return p.vip == s.Address })
		if i < 0 {
			i = len(patients)
			patients = append(patients, patient{vip: s.Address})
		}
		patients[i].services = append(patients[i].services, s)
	}
	return patients
}
