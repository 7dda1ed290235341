package lvs

import (
	"net/netip"
	"slices"
	"time"
)

// A Configuration is what a configuration file asks of a director: a state, and how
// the health of its real servers is found out.
type Configuration struct {
	State
	// Health is of the services that declare anything of it, in the order of
	// State.Services; no key twice.
	Health []ServiceHealth
}

// A ServiceHealth says how the health of a service's real servers is found out, and
// what follows from it.
type ServiceHealth struct {
	ServiceKey
	// Quorum is the sum of the weights of live servers that the service needs; it is
	// lost below Quorum-Hysteresis and regained at Quorum+Hysteresis. 0: never lost.
	Quorum     uint32
	Hysteresis uint32
	// Sorry takes the place of all servers while the quorum is lost. Its Address is
	// the zero Addr if there is none.
	Sorry RealServer
	// SorryInhibit: while the quorum is kept, the sorry server has weight 0 rather
	// than not being there.
	SorryInhibit bool
	// Notify is told when the quorum is lost and regained.
	Notify []Notification
	// Servers are those that have checks, in the order of the service's.
	Servers []ServerHealth
	// Usual is what a server has that nothing is said of, here or in Unchecked: one that
	// is added later. Its key is the zero one; it has no checks if the service has none.
	Usual ServerHealth
	// Unchecked are the servers that have no checks although Usual has some.
	Unchecked []RealServerKey
}

// Among returns those of some real servers that have checks, in their order.
func (h *ServiceHealth) Among(servers []RealServer) []ServerHealth {
	declared := make(map[RealServerKey]*ServerHealth, len(h.Servers)+len(h.Unchecked))
	for i := range h.Servers {
		declared[h.Servers[i].RealServerKey] = &h.Servers[i]
	}
	for _, key := range h.Unchecked {
		declared[key] = &ServerHealth{}
	}
	var checked []ServerHealth
	for _, server := range servers {
		health, ok := declared[server.RealServerKey]
		if !ok {
			health = &h.Usual
		}
		if len(health.Checks) == 0 {
			continue
		}
		one := *health
		one.RealServerKey = server.RealServerKey
		checked = append(checked, one)
	}
	return checked
}

// A ServerHealth says how the health of one real server is found out: it is up while
// all of its checks succeed.
type ServerHealth struct {
	RealServerKey
	// Checks are at least one: those of the server, or those of its service.
	Checks []Check
	// Inhibit: while it is down it has weight 0 rather than not being there.
	Inhibit bool
	// Alpha: it is down until its first success; else up until it has failed.
	Alpha bool
	// Notify is told when it goes up and down.
	Notify []Notification
}

// A Check is one question to a real server, and when it is put.
type Check struct {
	Type CheckType
	// Path says where the question is sent.
	Path CheckPath
	// Address and Port are asked in place of the real server's; the zero values ask
	// that itself. With an Address, Path is PathRIP.
	Address netip.Addr
	Port    uint16

	Interval time.Duration // from the start of one to that of the next
	Timeout  time.Duration // not above Interval
	Jitter   time.Duration // each interval is up to this longer or shorter, at random
	Rise     int           // successes in a row that a server which is down needs; 1 at least
	Fall     int           // failures in a row that a server which is up needs; 1 at least

	// What follows is of the types that are named; else it is the zero value.

	TLS    *TLSCheck   // https always; tcp, http2, grpc and smtp speak plain without
	HTTP   HTTPCheck   // http, https, http2
	GRPC   GRPCCheck   // grpc
	DNS    DNSCheck    // dns
	SMTP   SMTPCheck   // smtp
	UDP    UDPCheck    // udp
	Script ScriptCheck // script
	File   FileCheck   // file
}

// A CheckType is what a check asks.
type CheckType string

// The types of checks.
const (
	CheckTCP    CheckType = "tcp"   // a connection is accepted
	CheckHTTP   CheckType = "http"  // HTTP/1.1
	CheckHTTPS  CheckType = "https" // HTTP/1.1 in TLS
	CheckHTTP2  CheckType = "http2" // HTTP/2, with prior knowledge where there is no TLS
	CheckGRPC   CheckType = "grpc"  // grpc.health.v1.Health/Check says SERVING
	CheckDNS    CheckType = "dns"   // a query over UDP is answered without an error
	CheckSMTP   CheckType = "smtp"  // greeting, EHLO (or HELO) and QUIT are answered as they should be
	CheckUDP    CheckType = "udp"   // a datagram is answered, or at least not refused
	CheckICMP   CheckType = "icmp"  // an echo request is answered
	CheckScript CheckType = "script"
	CheckFile   CheckType = "file"
)

// CheckTypes lists the types of checks.
func CheckTypes() []CheckType {
	return []CheckType{CheckTCP, CheckHTTP, CheckHTTPS, CheckHTTP2, CheckGRPC, CheckDNS, CheckSMTP, CheckUDP,
		CheckICMP, CheckScript, CheckFile}
}

// A CheckPath is the way that a check's packets take to the real server.
type CheckPath string

// The paths. Scripts and files have none: theirs is "".
const (
	// PathVIP sends to the virtual address, by the real server's forwarding method,
	// as a client's packet goes.
	PathVIP CheckPath = "vip"
	// PathRIP sends to the real server's own address.
	PathRIP CheckPath = "rip"
)

// An HTTPCheck is a request, and what its answer has to be.
type HTTPCheck struct {
	Method string // "GET"
	Path   string // with the query: "/health?deep=1"
	Host   string // the Host header, and the server name of TLS; "": the address
	Status []StatusRange
	// BodyRegex is to match somewhere in the body; in the syntax of package regexp.
	// "": any body.
	BodyRegex string
	// Digest is of the body: 32 hexadecimal digits of MD5 or 64 of SHA-256, in lower
	// case. "": any body.
	Digest string
	// HeaderWeight names the header of the answer that holds the server's weight;
	// "": none. An answer without it leaves the weight as it is configured.
	HeaderWeight string
}

// A StatusRange is the HTTP statuses from First to Last, both of which belong to it.
type StatusRange struct{ First, Last int }

// A TLSCheck says how TLS is spoken.
type TLSCheck struct {
	// ServerName is the SNI, and the name that the certificate has to be of. "": the
	// host that is asked for, if that is a name; else no name is sent, and the
	// certificate has to be of the address.
	ServerName string
	CA         string // a file of PEM certificates; "": those of the system
	SkipVerify bool   // any certificate will do
}

// A GRPCCheck asks for the health of one service; "": of the whole server.
type GRPCCheck struct{ Service string }

// A DNSCheck is a query: a fully qualified name, and the name of a type, like "A".
type DNSCheck struct{ Name, Type string }

// An SMTPCheck says by which name a checker introduces itself; "": by the host's.
type SMTPCheck struct{ Helo string }

// A UDPCheck is a datagram, and its answer.
type UDPCheck struct {
	Payload string // bytes; "" is an empty datagram
	// Expect is how the answer begins. nil: none is waited for, and only an ICMP
	// error is a failure.
	Expect *BytePattern
}

// A BytePattern is bytes of which only the bits of a mask count. Both have the same
// length.
type BytePattern struct{ Value, Mask string }

// Begins reports whether data begins with what the pattern asks for. Every data
// begins with an empty pattern.
func (p BytePattern) Begins(data []byte) bool {
	if len(data) < len(p.Value) {
		return false
	}
	for i := range len(p.Value) {
		if (data[i]^p.Value[i])&p.Mask[i] != 0 {
			return false
		}
	}
	return true
}

// A ScriptCheck runs a command: exit status 0 is success. It is killed at the
// check's timeout.
type ScriptCheck struct {
	Command
	// Weight: a status from 2 to 255 is success too, and the server's weight is the
	// status minus 2.
	Weight bool
}

// A FileCheck reads a file that holds a whole number: above 0 is success. A file that
// can't be read, or holds something else, is a failure.
type FileCheck struct {
	Path string
	// Weight: the number is the server's weight, and 0 is success too.
	Weight bool
}

// A Command is a program, by its absolute path, and its arguments.
type Command struct {
	Path string
	Args []string
}

// A Notification is somebody who is told of transitions: a command, or a URL that is
// posted to. One of them is not the zero value.
type Notification struct {
	// On lists the transitions; none: all.
	On      []Transition
	Script  Command
	Webhook string
}

// A Transition is what is told of.
type Transition string

// The transitions.
const (
	ServerUp   Transition = "up"
	ServerDown Transition = "down"
	QuorumUp   Transition = "quorum-up"
	QuorumDown Transition = "quorum-down"
)

// Transitions lists all transitions.
func Transitions() []Transition { return []Transition{ServerUp, ServerDown, QuorumUp, QuorumDown} }

// Wants reports whether the notification is told of a transition.
func (n Notification) Wants(t Transition) bool { return len(n.On) == 0 || slices.Contains(n.On, t) }
