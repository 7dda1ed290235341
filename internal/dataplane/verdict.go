package dataplane

import (
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
)

// VerdictCount is how often packets left the data plane by one way out.
type VerdictCount struct {
	Name    string
	Kind    string // KindNormal, KindMisconfiguration or KindBug
	Meaning string
	Packets uint64
}

// The kinds of a verdict.
const (
	KindNormal           = "normal"
	KindMisconfiguration = "misconfiguration"
	KindBug              = "bug"
)

// verdictTexts are in the order of enum verdict.
var verdictTexts = [directorVerdictVERDICTS]VerdictCount{
	directorVerdictCONTINUE:              {"continue", KindBug, "left the data plane without a verdict", 0},
	directorVerdictPASS_NO_SERVICES:      {"pass-no-services", KindNormal, "to the host: no virtual service is configured", 0},
	directorVerdictPASS_OTHER_HOST:       {"pass-other-host", KindNormal, "to the host: not sent to this interface's MAC address", 0},
	directorVerdictPASS_NOT_IP:           {"pass-not-ip", KindNormal, "to the host: neither IPv4 nor IPv6, such as ARP", 0},
	directorVerdictPASS_PROTOCOL:         {"pass-protocol", KindNormal, "to the host: neither TCP, UDP, SCTP nor ICMP", 0},
	directorVerdictPASS_ICMP:             {"pass-icmp", KindNormal, "to the host: ICMP that is about no connection", 0},
	directorVerdictPASS_FRAGMENT:         {"pass-fragment", KindNormal, "to the host: a fragment that is not for a virtual service", 0},
	directorVerdictPASS_MALFORMED:        {"pass-malformed", KindNormal, "to the host: cut short, or lengths that contradict each other", 0},
	directorVerdictPASS_NO_SERVICE:       {"pass-no-service", KindNormal, "to the host: no virtual service of that protocol, address and port", 0},
	directorVerdictPASS_NO_CONNECTION:    {"pass-no-connection", KindNormal, "to the host: TCP or SCTP in the middle of a connection that is not known", 0},
	directorVerdictPASS_FTP:              {"pass-ftp", KindNormal, "to the host: FTP data, which only a persistent service takes", 0},
	directorVerdictPASS_PEER:             {"pass-peer", KindNormal, "to the host: a peer director forwarded it to this real server", 0},
	directorVerdictPASS_LOCAL:            {"pass-local", KindNormal, "to the host: its real server is this director", 0},
	directorVerdictFORWARD:               {"forward", KindNormal, "to a real server", 0},
	directorVerdictFORWARD_NO_ENTRY:      {"forward-no-entry", KindMisconfiguration, "to a real server by hash: the connection table is full; a larger --connections helps", 0},
	directorVerdictFORWARD_ICMP:          {"forward-icmp", KindNormal, "to a real server: an ICMP error about one of its connections", 0},
	directorVerdictFORWARD_IN_FRAGMENTS:  {"forward-in-fragments", KindNormal, "to a real server or a client: larger than the way carries, in fragments that the director makes", 0},
	directorVerdictFORWARD_NO_TOA:        {"forward-no-toa", KindMisconfiguration, "to a real server without the client's address in a TCP option: no room in the TCP header (a client that misses the beginning of the answer acknowledges the rest selectively there), or, with the option, larger than the way to the real server carries", 0},
	directorVerdictFORWARD_REPLY:         {"forward-reply", KindNormal, "to a client: the reply of a real server that addresses are translated for", 0},
	directorVerdictHOLD_FRAGMENT:         {"hold-fragment", KindNormal, "kept by the director until its datagram's first fragment comes, and then counted once more", 0},
	directorVerdictANSWER_NO_SERVER:      {"answer-no-server", KindMisconfiguration, "answered with port unreachable: the service has no usable real server", 0},
	directorVerdictANSWER_NO_LOCAL_PORT:  {"answer-no-local-port", KindMisconfiguration, "answered with port unreachable: no free port among the local addresses; more of them help: fairlead local-address add", 0},
	directorVerdictANSWER_TTL:            {"answer-ttl", KindNormal, "answered with time exceeded", 0},
	directorVerdictANSWER_TOO_BIG:        {"answer-too-big", KindNormal, "answered with fragmentation needed or packet too big", 0},
	directorVerdictDROP_RATE_LIMIT:       {"drop-rate-limit", KindNormal, "dropped: an ICMP answer that the rate limit held back", 0},
	directorVerdictDROP_TOO_BIG:          {"drop-too-big", KindMisconfiguration, "dropped: larger than the way carries, and nobody fragments it: no director runs, or it is an aggregate, an ICMP error or has more than 9344 bytes", 0},
	directorVerdictDROP_SERVER_REMOVED:   {"drop-server-removed", KindNormal, "dropped: of a connection whose real server was removed", 0},
	directorVerdictDROP_NO_NEXT_HOP:      {"drop-no-next-hop", KindMisconfiguration, "dropped: the real server has no next hop; status tells why", 0},
	directorVerdictDROP_DEFENCE:          {"drop-defence", KindNormal, "dropped: a new connection, as drop_packet asks for; fairlead sysctl tells why", 0},
	directorVerdictDROP_ICMP_CHECKSUM:    {"drop-icmp-checksum", KindNormal, "dropped: an ICMP error about a connection, with a wrong checksum", 0},
	directorVerdictDROP_ICMP_ERROR:       {"drop-icmp-error", KindNormal, "dropped: an ICMP error that would have to be answered with one", 0},
	directorVerdictDROP_NO_ROOM:          {"drop-no-room", KindMisconfiguration, "dropped: masquerading needs an entry for the way back, and the connection table is full; a larger --connections helps", 0},
	directorVerdictDROP_NO_WAY_BACK:      {"drop-no-way-back", KindMisconfiguration, "dropped: a reply to whose client the director has no route", 0},
	directorVerdictDROP_FRAGMENT:         {"drop-fragment", KindNormal, "dropped: a fragment whose datagram's first one was dropped or answered", 0},
	directorVerdictDROP_FRAGMENT_TINY:    {"drop-fragment-tiny", KindNormal, "dropped: a first fragment without its whole TCP, UDP or SCTP header", 0},
	directorVerdictDROP_FRAGMENT_OVERLAP: {"drop-fragment-overlap", KindNormal, "dropped: a fragment that contradicts others of its datagram", 0},
	directorVerdictDROP_FRAGMENT_LOST:    {"drop-fragment-lost", KindNormal, "dropped: a fragment that came before its datagram's first one, and found no room to wait; or no director runs to keep it", 0},
	directorVerdictDROP_FRAGMENT_ALONE:   {"drop-fragment-alone", KindNormal, "dropped: a fragment whose datagram's first one did not come in time", 0},
	directorVerdictDROP_NO_CALL_ID:       {"drop-no-call-id", KindNormal, "dropped: a packet without a Call-ID, to a service with the persistence engine sip, which knows none without", 0},
	directorVerdictDROP_FRAGMENT_PORTS:   {"drop-fragment-ports", KindMisconfiguration, "dropped: a fragmented SCTP packet to a masqueraded real server on another port: its checksum can't be changed without the whole packet", 0},
	directorVerdictBUG_MAP:               {"bug-map", KindBug, "to the host: a look-up that cannot miss missed", 0},
	directorVerdictBUG_ADJUST:            {"bug-adjust", KindBug, "dropped: the kernel would not move the frame's ends", 0},
}

// Verdicts returns how often each verdict was given, in the order of the path.
func (p *Plane) Verdicts() ([]VerdictCount, error) {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("read the verdicts: %w", err)
	}
	var cursor ebpf.MapBatchCursor
	keys, packets := make([]uint32, len(verdictTexts)), make([]uint64, len(verdictTexts)*cpus)
	// All are there, and the kernel may say that no more are.
	n, err := p.maps.Verdicts.BatchLookup(&cursor, keys, packets, nil)
	if n < len(keys) {
		return nil, fmt.Errorf("read the verdicts: %d of %d: %w", n, len(keys), err)
	}
	counts := slices.Clone(verdictTexts[:])
	for i, v := range keys {
		for _, n := range packets[i*cpus : (i+1)*cpus] {
			counts[v].Packets += n
		}
	}
	return counts, nil
}
