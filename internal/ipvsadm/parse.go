package ipvsadm

import (
	"context"
	"math"
	"net/netip"
	"strings"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

const (
	defaultPersistence = 360 // seconds, of -p alone
	maxTimeout         = 31 * 24 * 60 * 60
	maxSyncMessage     = 65535 - 20 - 8
)

// A commandLine is what one command line asks for.
type commandLine struct {
	command token
	given   tokenSet

	// The virtual service. protocol is set by a mark too, for port names.
	protocol lvs.Protocol
	address  netip.Addr
	ipv6     bool
	port     uint16
	mark     uint32
	// netmask is an IPv4 mask in host order, or with ipv6 a prefix length.
	netmask     uint32
	persistence int64 // seconds
	scheduler   string
	schedFlags  string
	flags       lvs.SchedulerFlags
	engine      string

	server   lvs.RealServer
	timeouts lvs.Timeouts
}

// key returns the key of the virtual service.
func (c *commandLine) key() lvs.ServiceKey {
	if c.mark != 0 {
		return lvs.MarkKey(c.mark, c.ipv6)
	}
	return lvs.ServiceKey{Protocol: c.protocol, Address: c.address, Port: c.port}
}

// service returns the virtual service of -A and -E.
func (c *commandLine) service() lvs.Service {
	svc := lvs.Service{
		ServiceKey:        c.key(),
		Scheduler:         lvs.Scheduler(c.scheduler),
		SchedulerFlags:    c.flags,
		PersistenceEngine: c.engine,
		OnePacket:         c.given.has(optOnePacket),
	}
	if svc.Scheduler == "" {
		svc.Scheduler = lvs.DefaultScheduler
	}
	if c.given.has(optPersistent) {
		svc.PersistenceTimeout = time.Duration(c.persistence) * time.Second
		svc.PersistenceMask = c.netmask
	}
	return svc
}

// realServer returns the real server of -a, -e and -d. Direct routing and
// tunnelling change no port, so their servers have the service's.
func (c *commandLine) realServer() lvs.RealServer {
	rs := c.server
	if c.command != cmdDeleteServer && c.mark == 0 && !rs.Method.Translates() {
		rs.Port = c.port
	}
	return rs
}

// A parser reads one command line.
type parser struct {
	ctx   context.Context
	names resolver
	scan  scanner
	line  commandLine
}

// parse reads a command line and checks that its parts go together. Its error
// is a *failure.
func parse(ctx context.Context, names resolver, args []string) (*commandLine, error) {
	p := &parser{ctx: ctx, names: names, scan: scanner{args: args}}
	p.line.netmask = math.MaxUint32
	p.line.server.Weight = 1
	p.line.server.Method = lvs.DirectRouting
	if err := p.parseCommand(); err != nil {
		return nil, err
	}
	if p.line.command == cmdHelp || p.line.command == cmdVersion {
		return &p.line, nil
	}
	for {
		more, err := p.scan.scan()
		if err != nil {
			return nil, badOption(p.scan.word(), err)
		}
		if !more {
			break
		}
		if err := p.parseOption(); err != nil {
			return nil, err
		}
	}
	if err := p.parseArguments(); err != nil {
		return nil, err
	}
	if err := p.parseSchedFlags(); err != nil {
		return nil, err
	}
	if err := checkLegality(&p.line); err != nil {
		return nil, err
	}
	return &p.line, nil
}

// parseCommand reads the first option, which says what is to be done.
func (p *parser) parseCommand() error {
	found, err := p.scan.scan()
	if !found || err != nil || p.scan.current.token > cmdVersion {
		return tryHelp()
	}
	p.line.command = p.scan.current.token
	isState := p.scan.value == "master" || p.scan.value == "backup"
	switch {
	case p.line.command == cmdStartDaemon && !isState:
		return usageError("illegal start-daemon parameter specified")
	case p.line.command == cmdStopDaemon && !isState:
		return usageError("illegal start_daemon specified")
	}
	return nil
}

// parseOption takes in the option that was scanned.
func (p *parser) parseOption() error {
	t := p.scan.current.token
	if t <= cmdVersion {
		return usageError("invalid option `%s'", p.scan.word())
	}
	if t != optSort && t != optIPv6 {
		if p.line.given.has(t) {
			return usageError("multiple '%s' options specified", t)
		}
		p.line.given |= setOf(t)
	}
	value := p.scan.value
	switch t {
	case optService:
		return p.parseService(value)
	case optIPv6:
		if p.line.mark == 0 {
			return usageError("-6 used before -f\n")
		}
		p.line.ipv6, p.line.netmask = true, 128
	case optScheduler:
		p.line.scheduler = value
	case optSchedFlags:
		p.line.schedFlags = value
	case optEngine:
		p.line.engine = value
	case optPersistent:
		p.line.persistence = defaultPersistence
		if p.scan.given {
			n, err := parseTimeout(value, 1)
			p.line.persistence = n
			return err
		}
	case optNetmask:
		return p.parseNetmask(value)
	default:
		return p.parseServerOption(t, value)
	}
	return nil
}

// parseServerOption takes in an option of a real server.
func (p *parser) parseServerOption(t token, value string) error {
	rs := &p.line.server
	switch t {
	case optServer:
		return p.parseServer(value)
	case optForward:
		rs.Method = map[string]lvs.ForwardingMethod{
			"gatewaying": lvs.DirectRouting, "ipip": lvs.Tunnelling, "masquerading": lvs.Masquerading,
			"fullnat": lvs.FullNAT,
		}[p.scan.current.long]
	case optWeight:
		return parseInto(&rs.Weight, value, "weight")
	case optUpperThreshold:
		return parseInto(&rs.UpperThreshold, value, "u_threshold")
	case optLowerThreshold:
		return parseInto(&rs.LowerThreshold, value, "l_threshold")
	case optTunType:
		for _, known := range []lvs.TunnelType{lvs.IPIP, lvs.GUE, lvs.GRE} {
			if value == known.String() {
				rs.Tunnel.Type = known
				return nil
			}
		}
		return usageError("illegal tunnel type specified")
	case optTunPort:
		port, ok := parseNumber(value, 1, 65535)
		if !ok {
			return usageError("illegal tunnel port specified")
		}
		rs.Tunnel.Port = uint16(port)
	case optTunNoChecksum:
		rs.Tunnel.Checksum = lvs.NoChecksum
	case optTunChecksum:
		rs.Tunnel.Checksum = lvs.Checksum
	case optTOA:
		rs.TOA = true
	case optTunRemoteChecksum:
		rs.Tunnel.Checksum = lvs.RemoteChecksum
	default:
		return checkDaemonOption(t, value)
	}
	return nil
}

// checkDaemonOption checks the value of an option of a sync daemon. Nothing
// keeps it, since none can be started.
func checkDaemonOption(t token, value string) error {
	limits := map[token]struct{ lowest, highest int64 }{
		optSyncID:     {0, 255},
		optSyncMaxLen: {1, maxSyncMessage},
		optMcastPort:  {1, 65535},
		optMcastTTL:   {1, 255},
	}
	if limit, ok := limits[t]; ok {
		if _, ok := parseNumber(value, limit.lowest, limit.highest); !ok {
			return usageError("illegal %s specified", t)
		}
	}
	if t != optMcastGroup {
		return nil
	}
	group, err := netip.ParseAddr(value)
	isGroup := err == nil && group.IsMulticast() && !group.Is4In6() && group.Zone() == ""
	if strings.Contains(value, ":") {
		if !isGroup || !group.Is6() {
			return usageError("invalid IPv6 mcast-group `%s'", value)
		}
	} else if !isGroup {
		return usageError("invalid IPv4 mcast-group `%s'", value)
	}
	return nil
}

// parseInto reads a number of 0..2147483647; what names it in the complaint.
func parseInto(to *uint32, value, what string) error {
	n, ok := parseNumber(value, 0, math.MaxInt32)
	if !ok {
		return usageError("illegal %s specified", what)
	}
	*to = uint32(n)
	return nil
}

// parseTimeout reads a time of lowest seconds to 31 days, in seconds.
func parseTimeout(value string, lowest int64) (int64, error) {
	n, ok := parseNumber(value, lowest, maxTimeout)
	if !ok {
		return 0, usageError("invalid timeout value `%s' specified", value)
	}
	return n, nil
}

// parseArguments takes the arguments that belong to no option: three of --set.
func (p *parser) parseArguments() error {
	if p.line.command == cmdSet {
		var words [3]string
		for i := range words {
			word, ok := p.scan.argument()
			if !ok {
				return usageError("--set option requires 3 timeout values")
			}
			words[i] = word
		}
		for i, to := range []*time.Duration{&p.line.timeouts.TCP, &p.line.timeouts.TCPFin, &p.line.timeouts.UDP} {
			seconds, err := parseTimeout(words[i], 0)
			if err != nil {
				return err
			}
			*to = time.Duration(seconds) * time.Second
		}
	}
	if word, ok := p.scan.argument(); ok {
		return usageError("unexpected argument %s", word)
	}
	return nil
}

// schedulerFlags are the names of the flags; those with a scheduler go with no
// other.
var schedulerFlags = []struct {
	name      string
	scheduler lvs.Scheduler
	flag      lvs.SchedulerFlags
}{
	{"flag-1", "", lvs.Flag1},
	{"flag-2", "", lvs.Flag2},
	{"flag-3", "", lvs.Flag3},
	{"sh-fallback", lvs.SourceHashing, lvs.SHFallback},
	{"sh-port", lvs.SourceHashing, lvs.SHPort},
	{"mh-fallback", lvs.MaglevHashing, lvs.MHFallback},
	{"mh-port", lvs.MaglevHashing, lvs.MHPort},
	{"mh-stable", lvs.MaglevHashing, lvs.MHStable}, // not in IPVS
}

// parseSchedFlags reads the list of -b. It comes last, since it may stand before
// the scheduler that it belongs to.
func (p *parser) parseSchedFlags() error {
	list := p.line.schedFlags
	if list != "" && strings.Trim(list, ",") == "" {
		return usageError("invalid scheduler flag `%s'", list)
	}
	for _, word := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' }) {
		known := false
		for _, f := range schedulerFlags {
			if f.name != word {
				continue
			}
			if f.scheduler != "" && f.scheduler != lvs.Scheduler(p.line.scheduler) {
				return usageError("incompatible scheduler flag `%s'", word)
			}
			p.line.flags |= f.flag
			known = true
		}
		if !known {
			return usageError("invalid scheduler flag `%s'", word)
		}
	}
	return nil
}
