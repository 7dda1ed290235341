package ipvsadm

import "github.com/fairlead-lb/fairlead/internal/lvs"

// A rule says which options go with a command, or with a tunnel type. All
// others are refused.
type rule struct {
	needed  tokenSet
	allowed tokenSet
	oneOf   tokenSet // allowed, but not two of them
}

var (
	serviceRule = rule{
		needed:  setOf(optService),
		allowed: setOf(optScheduler, optPersistent, optNetmask, optOnePacket, optEngine, optSchedFlags),
	}
	serverRule = rule{
		needed: setOf(optService, optServer),
		allowed: setOf(optForward, optWeight, optUpperThreshold, optLowerThreshold,
			optTunType, optTunPort, optTunNoChecksum, optTunChecksum, optTunRemoteChecksum, optTOA),
	}
)

// commandRules are the rules of the commands.
var commandRules = [...]rule{
	cmdAddService:    serviceRule,
	cmdEditService:   serviceRule,
	cmdDeleteService: {needed: setOf(optService)},
	cmdClear:         {},
	cmdList: {
		allowed: setOf(optNumeric, optStats, optRate, optThresholds, optPersistentConn, optNoSort, optSyncID, optExact, optTunInfo),
		oneOf:   setOf(optConnection, optService, optTimeout, optDaemon),
	},
	cmdAddServer:    serverRule,
	cmdDeleteServer: {needed: setOf(optService, optServer)},
	cmdEditServer:   serverRule,
	cmdSet:          {},
	cmdStartDaemon: {
		allowed: setOf(optMcastInterface, optSyncID, optMcastGroup, optMcastPort, optMcastTTL, optSyncMaxLen),
	},
	cmdStopDaemon: {allowed: setOf(optSyncID)},
	cmdRestore:    {},
	cmdSave:       {allowed: setOf(optNumeric)},
	cmdZero:       {allowed: setOf(optService)},
}

var (
	checksumOptions = setOf(optTunNoChecksum, optTunChecksum, optTunRemoteChecksum)
	tunnelOptions   = checksumOptions | setOf(optTunType, optTunPort)
)

// tunnelRules are the rules of the tunnel types.
var tunnelRules = [...]rule{
	lvs.IPIP: {},
	lvs.GUE:  {needed: setOf(optTunPort), oneOf: checksumOptions},
	lvs.GRE:  {oneOf: setOf(optTunNoChecksum, optTunChecksum)},
}

// check complains about the first of the options first..last that breaks the
// rule. owner and kind name whose rule it is: "list" "command", "gue" "tunnel
// type".
func (r rule) check(given tokenSet, first, last token, owner, kind string) error {
	var chosen token
	for t := first; t <= last; t++ {
		switch {
		case !given.has(t):
			if r.needed.has(t) {
				return usageError("You need to supply the '%s' option for the '%s' %s", t, owner, kind)
			}
		case r.oneOf.has(t):
			if chosen != cmdNone {
				return usageError("The option '%s' conflicts with the '%s' option in the '%s' %s", t, chosen, owner, kind)
			}
			chosen = t
		case !r.needed.has(t) && !r.allowed.has(t):
			return usageError("Illegal '%s' option with the '%s' %s", t, owner, kind)
		}
	}
	return nil
}

// checkLegality refuses a command line whose parts do not go together, in the
// order in which ipvsadm does.
func checkLegality(c *commandLine) error {
	if err := commandRules[c.command].check(c.given, firstOption, lastOption, c.command.String(), "command"); err != nil {
		return err
	}
	switch c.command {
	case cmdAddService, cmdEditService:
		return checkServiceOptions(c)
	case cmdAddServer, cmdEditServer:
		return checkServerOptions(c)
	case cmdList:
		return checkListOptions(c.given)
	}
	return nil
}

func checkServiceOptions(c *commandLine) error {
	if c.mark == 0 && c.port == 0 && !c.given.has(optPersistent) {
		return usageError("Zero port specified for non-persistent service")
	}
	if c.given.has(optOnePacket) && c.mark == 0 && c.protocol != lvs.UDP {
		return usageError("One-Packet Scheduling is only for UDP virtual services")
	}
	return nil
}

func checkServerOptions(c *commandLine) error {
	if c.given.has(optTOA) && c.server.Method != lvs.FullNAT {
		return usageError("The 'toa' option is for the forwarding method 'fullnat'")
	}
	if c.server.Method != lvs.Tunnelling {
		if c.server.Address.Is6() != c.ipv6 {
			return usageError("Different address family is allowed only for tunneling servers")
		}
		if c.given.any(tunnelOptions) {
			return usageError("Tunnel options conflict with forward method")
		}
		return nil
	}
	tunnel := c.server.Tunnel.Type
	return tunnelRules[tunnel].check(c.given, optTunPort, optTunRemoteChecksum, tunnel.String(), "tunnel type")
}

func checkListOptions(given tokenSet) error {
	if given.any(setOf(optConnection, optTimeout, optDaemon)) && given.any(setOf(optStats, optRate, optThresholds)) ||
		given.any(setOf(optTimeout, optDaemon)) && given.has(optPersistentConn) {
		return usageError("options conflicts in the list command")
	}
	return nil
}
