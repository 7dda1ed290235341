package config

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A realServer is a real_server as it was read. Its port is 0 if it has none of its
// own.
type realServer struct {
	lvs.RealServer
	health lvs.ServerHealth
	at     *statement
}

// serverReasons say why keywords of virtual and real servers are not carried over.
var serverReasons = map[string]string{
	"smtp_alert": reasonAlert, "snmp_name": "there is no SNMP", "ha_suspend": "checks go on when the address is on another host",
	"omega":              "notify tells of transitions alone, not of the director's end",
	"hashed":             "it says nothing",
	"delay_before_retry": "a failed check is repeated at its interval", "warmup": "checks begin at once and are spread by their jitter",
	"log_all_failures": "the log tells transitions, and metrics the rest", "bindto": "checks are sent from the host's own address",
	"bind_if": "checks are sent from the host's own address", "bind_port": "checks are sent from any port", "fwmark": "checks carry no mark",
}

var lvsMethods = map[string]lvs.ForwardingMethod{"NAT": lvs.Masquerading, "DR": lvs.DirectRouting, "TUN": lvs.Tunnelling}

// parseForwarding reads "NAT", "DR" or "TUN [type ipip|gue port N|gre] [nocsum|csum|remcsum]".
func parseForwarding(words []string) (forwarding, error) {
	if len(words) == 0 {
		return forwarding{}, fmt.Errorf("want NAT, DR or TUN")
	}
	method, ok := lvsMethods[words[0]]
	if !ok {
		return forwarding{}, fmt.Errorf("method %s: want NAT, DR or TUN", words[0])
	}
	f := forwarding{method: method}
	for i := 1; i < len(words); i++ {
		value := ""
		if i+1 < len(words) {
			value = words[i+1]
		}
		switch words[i] {
		case "type":
			at := slices.Index(tunnelWords, value)
			if at < 0 {
				return f, fmt.Errorf("type %q: want ipip, gue or gre", value)
			}
			f.tunnel.Type = tunnelValues[at]
			i++
		case "port":
			port, err := strconv.ParseUint(value, 10, 16)
			if err != nil {
				return f, fmt.Errorf("port %q: want 1 to 65535", value)
			}
			f.tunnel.Port = uint16(port)
			i++
		case "nocsum":
			f.tunnel.Checksum = lvs.NoChecksum
		case "csum":
			f.tunnel.Checksum = lvs.Checksum
		case "remcsum":
			f.tunnel.Checksum = lvs.RemoteChecksum
		default:
			return f, fmt.Errorf("%q: want type, port, nocsum, csum or remcsum", words[i])
		}
	}
	if method != lvs.Tunnelling && f.tunnel != (lvs.Tunnel{}) {
		return f, fmt.Errorf("type is of TUN")
	}
	return f, nil
}

// take carries a statement over if err is nil, else it lists it.
func (im *keepalivedImport) take(s *statement, err error) {
	if err != nil {
		im.drop(s, "%v", err)
		return
	}
	s.carried = true
}

// number reads the argument of a statement into n.
func number[V int | uint32](s *statement, n *V, min, max int64) error {
	value, err := strconv.ParseInt(s.arg(0), 10, 64)
	if err != nil || value < min || value > max {
		return fmt.Errorf("want a number, %d to %d", min, max)
	}
	*n = V(value)
	return nil
}

// timer reads seconds, which may have a fraction.
func timer(s *statement, d *time.Duration) error {
	seconds, err := strconv.ParseFloat(s.arg(0), 64)
	if err != nil || !(seconds >= 0 && seconds <= 24*60*60) {
		return fmt.Errorf("want seconds, to 86400")
	}
	*d = time.Duration(seconds * float64(time.Second)).Round(time.Millisecond)
	return nil
}

// flag reads a keyword that is true by itself.
func flag(s *statement, is *bool) error {
	switch s.arg(0) {
	case "", "on", "true", "yes":
		*is = true
	case "off", "false", "no":
		*is = false
	default:
		return fmt.Errorf("want on or off")
	}
	return nil
}

// timingKeyword takes a keyword that virtual servers, real servers and checks have; it
// reports whether it was one.
func (im *keepalivedImport) timingKeyword(t *timing, s *statement) bool {
	switch keyword := s.words[0]; keyword {
	case "delay_loop":
		im.take(s, timer(s, &t.interval))
	case "connect_timeout":
		im.take(s, timer(s, &t.timeout))
	case "retry", "nb_get_retry":
		im.take(s, number(s, &t.retry, 0, 999))
	case "alpha":
		im.take(s, flag(s, &t.alpha))
	case "inhibit_on_failure":
		im.take(s, flag(s, &t.inhibit))
	case "virtualhost":
		t.virtualhost = s.arg(0)
		im.take(s, nil)
	default:
		reason := serverReasons[keyword]
		if reason != "" {
			im.drop(s, "%s", reason)
		}
		return reason != ""
	}
	return true
}

func (im *keepalivedImport) virtualServerKeyword(vs *virtualServer, s *statement) {
	var err error
	switch keyword := s.words[0]; keyword {
	case "lvs_sched", "lb_algo":
		vs.service.Scheduler = lvs.Scheduler(s.arg(0))
		if !vs.service.Scheduler.Known() {
			vs.service.Scheduler = lvs.DefaultScheduler
			err = fmt.Errorf("want one of %v; %s is taken", lvs.Schedulers(), lvs.DefaultScheduler)
		}
	case "flag-1", "sh-fallback", "mh-fallback":
		vs.service.SchedulerFlags |= lvs.Flag1
	case "flag-2", "sh-port", "mh-port":
		vs.service.SchedulerFlags |= lvs.Flag2
	case "flag-3":
		vs.service.SchedulerFlags |= lvs.Flag3
	case "ops":
		vs.service.OnePacket = true
	case "lvs_method", "lb_kind":
		var by forwarding
		if by, err = parseForwarding(s.words[1:]); err == nil {
			vs.method = by
		}
	case "persistence_timeout":
		seconds := 360
		if len(s.words) > 1 {
			err = number(s, &seconds, 0, lvs.MaxTimeoutSeconds)
		}
		vs.service.PersistenceTimeout = time.Duration(seconds) * time.Second
	case "persistence_granularity":
		vs.mask = s
	case "persistence_engine":
		if vs.service.PersistenceEngine = s.arg(0); vs.service.PersistenceEngine != lvs.EngineSIP {
			err = fmt.Errorf("want %s", lvs.EngineSIP)
		}
	case "protocol":
		protocol, ok := protocolWords[strings.ToLower(s.arg(0))]
		if !ok {
			err = fmt.Errorf("want TCP, UDP or SCTP")
			break
		}
		vs.protocol = protocol
	case "ip_family":
		vs.ipv6 = s.arg(0) == "inet6"
	case "quorum":
		err = number(s, &vs.health.Quorum, 0, math.MaxInt32)
	case "hysteresis":
		err = number(s, &vs.health.Hysteresis, 0, math.MaxInt32)
	case "weight":
		err = number(s, &vs.weight, 0, math.MaxInt32)
	case "sorry_server":
		vs.sorry = s
	case "sorry_server_inhibit":
		vs.health.SorryInhibit = true
	case "sorry_server_lvs_method":
		var by forwarding
		if by, err = parseForwarding(s.words[1:]); err == nil {
			vs.sorryBy = &by
		}
	case "quorum_up", "quorum_down":
		transition := map[string]lvs.Transition{"quorum_up": lvs.QuorumUp, "quorum_down": lvs.QuorumDown}[keyword]
		im.notify(s, transition, &vs.health.Notify)
		return
	default:
		im.timingKeyword(&vs.timing, s)
		return
	}
	im.take(s, err)
}

// notify takes "KEYWORD COMMAND [USER [GROUP]]".
func (im *keepalivedImport) notify(s *statement, on lvs.Transition, into *[]lvs.Notification) {
	command, err := parseCommand(s)
	if err != nil {
		im.drop(s, "%v", err)
		return
	}
	s.carried = true
	if len(s.words) > 2 {
		im.note(s, "the command is run by the director's own user")
	}
	*into = append(*into, lvs.Notification{On: []lvs.Transition{on}, Script: command})
}

// parseCommand reads a command with its arguments, which are one word in quotes.
func parseCommand(s *statement) (lvs.Command, error) {
	words := strings.Fields(s.arg(0))
	if len(words) == 0 || !filepath.IsAbs(words[0]) {
		return lvs.Command{}, fmt.Errorf("want a command by its absolute path")
	}
	for _, word := range words {
		if strings.ContainsAny(word, "'\"`$;|&<>*\\") {
			return lvs.Command{}, fmt.Errorf("%q is for a shell, and none is asked: put it into a script", word)
		}
	}
	command := lvs.Command{Path: words[0]}
	if len(words) > 1 {
		command.Args = words[1:]
	}
	return command, nil
}

func (im *keepalivedImport) realServer(vs *virtualServer, s *statement) {
	m, err := parseMember(s.words[1:][:min(2, len(s.words)-1)])
	if len(s.words) < 2 || err != nil || len(m.addrs) != 1 {
		im.drop(s, "want an address and a port")
		return
	}
	s.carried = true
	server := realServer{at: s, RealServer: lvs.RealServer{
		RealServerKey: lvs.RealServerKey{Address: m.addrs[0], Port: m.port}, Method: vs.method.method, Tunnel: vs.method.tunnel, Weight: vs.weight,
	}}
	t, checks := vs.timing, []*statement(nil)
	var told []*statement
	for _, inner := range s.block {
		var err error
		switch keyword := inner.words[0]; {
		case keyword == "weight":
			err = number(inner, &server.Weight, 0, math.MaxInt32)
		case keyword == "uthreshold":
			err = number(inner, &server.UpperThreshold, 0, math.MaxUint32)
		case keyword == "lthreshold":
			err = number(inner, &server.LowerThreshold, 0, math.MaxUint32)
		case keyword == "lvs_method":
			var by forwarding
			if by, err = parseForwarding(inner.words[1:]); err == nil {
				server.Method, server.Tunnel = by.method, by.tunnel
			}
		case keyword == "notify_up" || keyword == "notify_down":
			told = append(told, inner)
			continue
		case inner.braced:
			checks = append(checks, inner)
			continue
		default:
			im.timingKeyword(&t, inner)
			continue
		}
		im.take(inner, err)
	}
	if server.LowerThreshold > server.UpperThreshold {
		im.list(s.at, "lthreshold is above uthreshold, and left out")
		server.LowerThreshold = 0
	}
	server.health.Inhibit, server.health.Alpha = t.inhibit, t.alpha
	for _, check := range checks {
		im.check(&server, t, check)
	}
	// What tells of the quorum says nothing of servers, and is not said twice.
	server.health.Notify = slices.Clone(vs.health.Notify)
	for _, inner := range told {
		if len(server.health.Checks) == 0 {
			im.drop(inner, "a server without checks is never up or down")
			continue
		}
		im.notify(inner, map[string]lvs.Transition{"notify_up": lvs.ServerUp, "notify_down": lvs.ServerDown}[inner.words[0]], &server.health.Notify)
	}
	vs.servers = append(vs.servers, server)
}
