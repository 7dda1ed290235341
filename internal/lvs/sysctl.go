package lvs

import (
	"fmt"
	"math"
	"slices"
	"strconv"
)

// A Sysctl is a value that says how connections are treated: one of those that
// the kernel has under net.ipv4.vs, with its name, range and meaning, or a
// timeout. Of timeouts the kernel lets only three be changed (ipvsadm --set).
type Sysctl struct {
	Name    string
	Meaning string // for a person to read
	Unit    string // "s", or "" for a mere number
	Default int32
	Min     int32
	Max     int32
	// PerService: a service may have a value of its own.
	PerService bool
}

// IsMode reports whether the sysctl is a mode of defence, 0 to 3: one that turns from
// 1 to 2 while the connection table is nearly full, and back.
func (s Sysctl) IsMode() bool { return s.Unit == "" && s.Min == 0 && s.Max == 3 }

// A SysctlValue is a sysctl as it was read back.
type SysctlValue struct {
	Sysctl
	Value int32
	// Own: the service that was asked about has this value for itself, and does
	// not follow the director's. Never set for a director.
	Own bool
}

// A SysctlChange asks for a new value. With Reset, Value means nothing: a
// director's sysctl gets its default, and a service has no value of its own any
// more.
type SysctlChange struct {
	Name  string
	Value int32
	Reset bool
}

// MaxTimeoutSeconds is the longest timeout, 31 days, as ipvsadm has it.
const MaxTimeoutSeconds = 31 * 24 * 60 * 60

// sysctls are in the order in which they are listed. The kernel takes any number
// for all but the modes of defence (ip_vs_ctl.c, vs_vars).
var sysctls = []Sysctl{
	switchOf("am_droprate", "drop_packet 3 drops one new connection of so many", 10),
	directorOnly(switchOf("amemthresh", "free pages of the connection table, 64 connections each, below which the defence modes 1 and 2 act; "+
		"at most 1/16 of the table counts", 1024)),
	switchOf("conn_reuse_mode", "what a first packet on the ports of a known connection does: 0 follows it, "+
		"bit 1 begins anew if that is closed, bit 2 in FIN_WAIT too", 1),
	mode("drop_entry", "gives up half-open and hardly used entries: 0 never, 1 when the table is nearly full, "+
		"2 the same and now, 3 always"),
	mode("drop_packet", "drops some new connections: 0 none, 1 when the table is nearly full, 2 the same and now, 3 always"),
	switchOf("expire_nodest_conn", "1 ends a connection whose real server was removed; 0 drops its packets until that returns", 0),
	switchOf("expire_quiescent_template", "1 lets no persistence entry lead to a real server of weight 0", 0),
	directorOnly(duration("lblc_expiration", "scheduler lblc forgets who served an address that was not asked for so long", 24*60*60)),
	directorOnly(duration("lblcr_expiration", "scheduler lblcr forgets who served an address that was not asked for so long, "+
		"and takes a real server away from one that has several", 24*60*60)),
	switchOf("mss_clamp", "1 lowers the segment size that the SYN of a client asks for to what fits into the tunnel to its real server; not in IPVS", 0),
	directorOnly(switchOf("schedule_icmp", "1 takes an ICMP error about no known connection for the beginning of one", 0)),
	mode("secure_tcp", "half-open connections are SYNACK instead of SYN_RECV, and RST closes them: 0 never, "+
		"1 when the table is nearly full, 2 the same and now, 3 always"),
	switchOf("sloppy_sctp", "1 takes SCTP that does not begin with INIT for a new connection", 0),
	switchOf("sloppy_tcp", "1 takes TCP that does not begin with SYN for a new connection", 0),
	duration("slow_start", "the time in which the share of a real server grows that was added, or whose weight was 0; "+
		"not in IPVS, for any scheduler; it counts from the next start on", 0),

	timeout("timeout_close", "TCP CLOSE", 10),
	timeout("timeout_closewait", "TCP CLOSE_WAIT", 60),
	timeout("timeout_established", "TCP ESTABLISHED; ipvsadm --set tcp", 900),
	timeout("timeout_finwait", "TCP FIN_WAIT; ipvsadm --set tcpfin", 120),
	timeout("timeout_lastack", "TCP LAST_ACK", 30),
	timeout("timeout_listen", "TCP LISTEN", 120),
	timeout("timeout_synack", "TCP SYNACK", 120),
	timeout("timeout_synrecv", "TCP SYN_RECV", 60),
	timeout("timeout_synsent", "TCP SYN_SENT", 120),
	timeout("timeout_timewait", "TCP TIME_WAIT", 120),
	timeout("timeout_udp", "UDP; ipvsadm --set udp", 300),
	timeout("timeout_sctp_closed", "SCTP CLOSED", 61),
	timeout("timeout_sctp_cookie", "SCTP COOKIE", 61),
	timeout("timeout_sctp_cookie_echoed", "SCTP C-ECHOED", 61),
	timeout("timeout_sctp_cookie_replied", "SCTP C-REPLIED", 61),
	timeout("timeout_sctp_cookie_sent", "SCTP C-SENT", 61),
	timeout("timeout_sctp_cookie_wait", "SCTP C-WAIT", 61),
	timeout("timeout_sctp_established", "SCTP ESTABLISHED", 900),
	timeout("timeout_sctp_init", "SCTP INIT", 61),
	timeout("timeout_sctp_init1", "SCTP INIT1", 4),
	timeout("timeout_sctp_rejected", "SCTP REJECTED", 4),
	timeout("timeout_sctp_shutdown_ack_sent", "SCTP S-ACK-SENT", 61),
	timeout("timeout_sctp_shutdown_received", "SCTP S-RECEIVED", 61),
	timeout("timeout_sctp_shutdown_sent", "SCTP S-SENT", 61),
}

func switchOf(name, meaning string, byDefault int32) Sysctl {
	return Sysctl{Name: name, Meaning: meaning, Default: byDefault, Min: math.MinInt32, Max: math.MaxInt32, PerService: true}
}

func duration(name, meaning string, seconds int32) Sysctl {
	return Sysctl{Name: name, Meaning: meaning, Unit: "s", Default: seconds, Max: MaxTimeoutSeconds, PerService: true}
}

func mode(name, meaning string) Sysctl {
	return Sysctl{Name: name, Meaning: meaning, Max: 3, PerService: true}
}

func timeout(name, state string, seconds int32) Sysctl {
	return Sysctl{
		Name: name, Meaning: "how long a connection stays without a packet in " + state, Unit: "s",
		Default: seconds, Min: 1, Max: MaxTimeoutSeconds, PerService: true,
	}
}

func directorOnly(s Sysctl) Sysctl {
	s.PerService = false
	return s
}

// An AbsentSysctl is one of the kernel's that means nothing here.
type AbsentSysctl struct {
	Name string
	Why  string // for a person to read
}

const (
	whyNoSync      = "there is no sync daemon yet"
	whyAlwaysRates = "rates are always estimated: they cost packets nothing"
)

// absentSysctls are in the order of their names.
var absentSysctls = []AbsentSysctl{
	{"backup_only", whyNoSync},
	{"cache_bypass", "packets are never sent past the real servers"},
	{"conntrack", "packets that are forwarded never meet the kernel's connection tracking"},
	{"debug_level", "the director is looked into with explain and status"},
	{"est_cpulist", whyAlwaysRates},
	{"est_nice", whyAlwaysRates},
	{"ignore_tunneled", "a packet that was in a tunnel is not scheduled twice"},
	{"nat_icmp_send", "replies of no connection are left to the host"},
	{"pmtu_disc", "what is too large for its way is always answered, also of a tunnel: that is 1"},
	{"run_estimation", whyAlwaysRates},
	{"snat_reroute", "replies are always routed as if the director sent them"},
	{"sync_persist_mode", whyNoSync},
	{"sync_ports", whyNoSync},
	{"sync_qlen_max", whyNoSync},
	{"sync_refresh_period", whyNoSync},
	{"sync_retries", whyNoSync},
	{"sync_sock_size", whyNoSync},
	{"sync_threshold", whyNoSync},
	{"sync_version", whyNoSync},
}

// Sysctls returns all sysctls, in the order in which they are listed.
func Sysctls() []Sysctl { return slices.Clone(sysctls) }

// AbsentSysctls returns those of the kernel that mean nothing here, in the order
// of their names.
func AbsentSysctls() []AbsentSysctl { return slices.Clone(absentSysctls) }

// FindSysctl returns the sysctl of a name. For one of the kernel's that means
// nothing here the error wraps ErrUnsupported and says why, for any other
// ErrInvalid.
func FindSysctl(name string) (Sysctl, error) {
	for _, s := range sysctls {
		if s.Name == name {
			return s, nil
		}
	}
	for _, s := range absentSysctls {
		if s.Name == name {
			return Sysctl{}, fmt.Errorf("sysctl %s: %w: %s", name, ErrUnsupported, s.Why)
		}
	}
	return Sysctl{}, fmt.Errorf("sysctl %q: %w: there is none of that name", name, ErrInvalid)
}

// ParseSysctlChange reads "NAME=VALUE", where VALUE is a number or "default". It
// wraps the errors of [FindSysctl], and ErrInvalid or ErrRange for a value.
func ParseSysctlChange(name, value string) (SysctlChange, error) {
	if value == "default" {
		_, err := FindSysctl(name)
		return SysctlChange{Name: name, Reset: true}, err
	}
	s, err := FindSysctl(name)
	if err != nil {
		return SysctlChange{}, err
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return SysctlChange{}, fmt.Errorf("sysctl %s=%s: %w: want a number or default", name, value, ErrInvalid)
	}
	if n < int64(s.Min) || n > int64(s.Max) {
		return SysctlChange{}, s.outOfRange(value)
	}
	return SysctlChange{Name: name, Value: int32(n)}, nil
}

func (s Sysctl) outOfRange(given any) error {
	return fmt.Errorf("sysctl %s=%v: %w: want %d to %d", s.Name, given, ErrRange, s.Min, s.Max)
}

// CheckSysctlChanges returns why one of the changes is refused, nil if none is;
// ofService says whether they are a service's.
func CheckSysctlChanges(changes []SysctlChange, ofService bool) error {
	for i, c := range changes {
		s, err := FindSysctl(c.Name)
		switch {
		case err != nil:
			return err
		case ofService && !s.PerService:
			return fmt.Errorf("sysctl %s: %w: it is the director's, no service has its own", c.Name, ErrInvalid)
		case !c.Reset && (c.Value < s.Min || c.Value > s.Max):
			return s.outOfRange(c.Value)
		case slices.ContainsFunc(changes[:i], func(before SysctlChange) bool { return before.Name == c.Name }):
			return fmt.Errorf("sysctl %s: %w: given twice", c.Name, ErrInvalid)
		}
	}
	return nil
}
