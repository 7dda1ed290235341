package ipvsadm

// A token is what an option of the command line means.
type token uint8

// The commands, in the order of ipvsadm's messages and tables.
const (
	cmdNone token = iota
	cmdAddService
	cmdEditService
	cmdDeleteService
	cmdClear
	cmdList
	cmdAddServer
	cmdDeleteServer
	cmdEditServer
	cmdSet
	cmdStartDaemon
	cmdStopDaemon
	cmdRestore
	cmdSave
	cmdZero
	cmdHelp
	cmdVersion
)

// The options. Some are classes of which a command line may have one: a service
// address is written in four ways, a forwarding method in three. The order is
// that in which they are checked, so it decides which complaint comes first.
const (
	optNumeric token = cmdVersion + 1 + iota
	optConnection
	optService
	optScheduler
	optPersistent
	optNetmask
	optServer
	optForward
	optWeight
	optUpperThreshold
	optLowerThreshold
	optMcastInterface
	optTimeout
	optDaemon
	optStats
	optRate
	optThresholds
	optPersistentConn
	optNoSort
	optSyncID
	optExact
	optOnePacket
	optEngine
	optSchedFlags
	optMcastGroup
	optMcastPort
	optMcastTTL
	optSyncMaxLen
	optTunInfo
	optTunType
	optTunPort
	optTunNoChecksum
	optTunChecksum
	optTunRemoteChecksum
	optTOA  // not in IPVS
	optSort // does nothing, and may be repeated
	optIPv6 // may be repeated

	firstOption = optNumeric
	lastOption  = optTOA
)

// names are the words that the messages use.
var names = [...]string{
	cmdAddService: "add-service", cmdEditService: "edit-service", cmdDeleteService: "delete-service",
	cmdClear: "flush", cmdList: "list", cmdAddServer: "add-server", cmdDeleteServer: "delete-server",
	cmdEditServer: "edit-server", cmdSet: "set", cmdStartDaemon: "start-daemon", cmdStopDaemon: "stop-daemon",
	cmdRestore: "restore", cmdSave: "save", cmdZero: "zero",

	optNumeric: "numeric", optConnection: "connection", optService: "service-address",
	optScheduler: "scheduler", optPersistent: "persistent", optNetmask: "netmask",
	optServer: "real-server", optForward: "forwarding-method", optWeight: "weight",
	optUpperThreshold: "u-threshold", optLowerThreshold: "l-threshold",
	optMcastInterface: "mcast-interface", optTimeout: "timeout", optDaemon: "daemon",
	optStats: "stats", optRate: "rate", optThresholds: "thresholds",
	optPersistentConn: "persistent-conn", optNoSort: "nosort", optSyncID: "syncid",
	optExact: "exact", optOnePacket: "ops", optEngine: "pe", optSchedFlags: "sched-flags",
	optMcastGroup: "mcast-group", optMcastPort: "mcast-port", optMcastTTL: "mcast-ttl",
	optSyncMaxLen: "sync-maxlen", optTunInfo: "tun-info", optTunType: "tun-type",
	optTunPort: "tun-port", optTunNoChecksum: "tun-nocsum", optTunChecksum: "tun-csum",
	optTunRemoteChecksum: "tun-remcsum", optTOA: "toa",
}

// String returns the word that the messages use.
func (t token) String() string { return names[t] }

// An argument says whether an option takes one.
type argument uint8

const (
	noArgument argument = iota
	needsArgument
	mayHaveArgument // not one that begins with a dash
)

// An option is one way to write a token.
type option struct {
	token    token
	long     string
	short    byte // 0: none
	argument argument
}

var grammar = [...]option{
	{cmdAddService, "add-service", 'A', noArgument},
	{cmdEditService, "edit-service", 'E', noArgument},
	{cmdDeleteService, "delete-service", 'D', noArgument},
	{cmdClear, "clear", 'C', noArgument},
	{cmdList, "list", 'L', noArgument},
	{cmdList, "list", 'l', noArgument},
	{cmdZero, "zero", 'Z', noArgument},
	{cmdRestore, "restore", 'R', noArgument},
	{cmdSave, "save", 'S', noArgument},
	{cmdAddServer, "add-server", 'a', noArgument},
	{cmdEditServer, "edit-server", 'e', noArgument},
	{cmdDeleteServer, "delete-server", 'd', noArgument},
	{cmdSet, "set", 0, noArgument},
	{cmdStartDaemon, "start-daemon", 0, needsArgument},
	{cmdStopDaemon, "stop-daemon", 0, needsArgument},
	{cmdHelp, "help", 'h', noArgument},
	{cmdVersion, "version", 'v', noArgument},

	{optService, "tcp-service", 't', needsArgument},
	{optService, "udp-service", 'u', needsArgument},
	{optService, "sctp-service", 0, needsArgument},
	{optService, "fwmark-service", 'f', needsArgument},
	{optScheduler, "scheduler", 's', needsArgument},
	{optPersistent, "persistent", 'p', mayHaveArgument},
	{optNetmask, "netmask", 'M', needsArgument},
	{optServer, "real-server", 'r', needsArgument},
	{optForward, "masquerading", 'm', noArgument},
	{optForward, "ipip", 'i', noArgument},
	{optForward, "gatewaying", 'g', noArgument},
	{optForward, "fullnat", 0, noArgument}, // not in IPVS
	{optWeight, "weight", 'w', needsArgument},
	{optUpperThreshold, "u-threshold", 'x', needsArgument},
	{optLowerThreshold, "l-threshold", 'y', needsArgument},
	{optNumeric, "numeric", 'n', noArgument},
	{optConnection, "connection", 'c', noArgument},
	{optMcastInterface, "mcast-interface", 0, needsArgument},
	{optTimeout, "timeout", 0, noArgument},
	{optDaemon, "daemon", 0, noArgument},
	{optStats, "stats", 0, noArgument},
	{optRate, "rate", 0, noArgument},
	{optThresholds, "thresholds", 0, noArgument},
	{optPersistentConn, "persistent-conn", 0, noArgument},
	{optNoSort, "nosort", 0, noArgument},
	{optSort, "sort", 0, noArgument},
	{optSyncID, "syncid", 0, needsArgument},
	{optExact, "exact", 'X', noArgument},
	{optIPv6, "ipv6", '6', noArgument},
	{optOnePacket, "ops", 'o', noArgument},
	{optEngine, "pe", 0, needsArgument},
	{optSchedFlags, "sched-flags", 'b', needsArgument},
	{optMcastGroup, "mcast-group", 0, needsArgument},
	{optMcastPort, "mcast-port", 0, needsArgument},
	{optMcastTTL, "mcast-ttl", 0, needsArgument},
	{optSyncMaxLen, "sync-maxlen", 0, needsArgument},
	{optTunInfo, "tun-info", 0, noArgument},
	{optTunType, "tun-type", 0, needsArgument},
	{optTunPort, "tun-port", 0, needsArgument},
	{optTunNoChecksum, "tun-nocsum", 0, noArgument},
	{optTunChecksum, "tun-csum", 0, noArgument},
	{optTunRemoteChecksum, "tun-remcsum", 0, noArgument},
	{optTOA, "toa", 0, noArgument},
}

func findLong(name string) *option {
	for i := range grammar {
		if grammar[i].long == name {
			return &grammar[i]
		}
	}
	return nil
}

func findShort(name byte) *option {
	for i := range grammar {
		if name != 0 && grammar[i].short == name {
			return &grammar[i]
		}
	}
	return nil
}

// A tokenSet holds tokens.
type tokenSet uint64

func setOf(tokens ...token) tokenSet {
	var s tokenSet
	for _, t := range tokens {
		s |= 1 << t
	}
	return s
}

func (s tokenSet) has(t token) bool { return s>>t&1 != 0 }

// any reports whether s and other have a token in common.
func (s tokenSet) any(other tokenSet) bool { return s&other != 0 }
