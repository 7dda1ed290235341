package director

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// What a director takes, and what it refuses in which order: IPVS's.

// CheckService returns why a director refuses s, nil if it does not. The error is one of
// package lvs.
func CheckService(s lvs.Service) error {
	if !s.Scheduler.Known() {
		return fmt.Errorf("scheduler %q: %w", s.Scheduler, lvs.ErrSchedulerNotFound)
	}
	if s.PersistenceEngine != "" && s.PersistenceEngine != lvs.EngineSIP {
		return fmt.Errorf("persistence engine %q: %w", s.PersistenceEngine, lvs.ErrSchedulerNotFound)
	}
	if err := checkServiceKey(s); err != nil {
		return err
	}
	switch {
	case s.PersistenceTimeout != 0 && s.Address.Is6() && (s.PersistenceMask < 1 || s.PersistenceMask > 128):
		return fmt.Errorf("persistence mask %d: %w: want an IPv6 prefix length, 1 to 128", s.PersistenceMask, lvs.ErrInvalid)
	case s.OnePacket && s.Mark == 0 && s.Protocol != lvs.UDP:
		return fmt.Errorf("one-packet scheduling of %s: %w: it is for UDP", s.Protocol, lvs.ErrInvalid)
	}
	return nil
}

func checkServiceKey(s lvs.Service) error {
	switch {
	case s.Mark != 0:
		return nil
	case s.Protocol != lvs.TCP && s.Protocol != lvs.UDP && s.Protocol != lvs.SCTP:
		return fmt.Errorf("protocol %s: %w: want TCP, UDP or SCTP", s.Protocol, lvs.ErrInvalid)
	case s.Port == 0 && s.PersistenceTimeout == 0:
		return fmt.Errorf("port 0: %w: want 1 to 65535; all ports is for persistent services", lvs.ErrInvalid)
	}
	return checkUnicast("virtual address", s.Address)
}

// checkThresholds is apart from checkServer because IPVS looks at them first,
// even before it says that a server exists already.
func checkThresholds(s lvs.RealServer) error {
	switch {
	case s.Weight > math.MaxInt32:
		return fmt.Errorf("weight %d: %w: want 0 to %d", s.Weight, lvs.ErrRange, math.MaxInt32)
	case s.LowerThreshold > s.UpperThreshold:
		return fmt.Errorf("lower threshold %d: %w: the upper threshold is %d", s.LowerThreshold, lvs.ErrRange, s.UpperThreshold)
	}
	return nil
}

// CheckServer returns why a director refuses to add s to the servers of a service, or to edit
// it if there says that it should be one of them already; nil if it does not refuse. has says
// whether it is one. The error is one of package lvs.
func CheckServer(service lvs.ServiceKey, s lvs.RealServer, has, there bool) error {
	if err := checkThresholds(s); err != nil {
		return err
	}
	switch {
	case has && !there:
		return lvs.ErrServerExists
	case there && !has:
		return lvs.ErrNoServer
	}
	return checkServer(service, s)
}

// checkServer returns why s is refused as a server of the service, nil if it is
// not.
func checkServer(service lvs.ServiceKey, s lvs.RealServer) error {
	if err := checkUnicast("address", s.Address); err != nil {
		return err
	}
	switch {
	case s.Method == lvs.Local:
		return fmt.Errorf("forwarding method %s: %w: a real server whose address is the director's own is local by itself",
			s.Method, lvs.ErrInvalid)
	case s.Method == lvs.Tunnelling:
		return checkTunnel(service, s)
	case s.Method != lvs.DirectRouting && !s.Method.Translates():
		return fmt.Errorf("forwarding method %s: %w", s.Method, lvs.ErrInvalid)
	case s.Address.Is4() != service.Address.Is4():
		return fmt.Errorf("address %s: %w: the virtual address is of the other family, which needs tunnelling",
			s.Address, lvs.ErrInvalid)
	case s.Port != service.Port && service.Mark == 0 && s.Method == lvs.DirectRouting:
		return fmt.Errorf("port %d: %w: direct routing does not change the port, %d", s.Port, lvs.ErrInvalid, service.Port)
	}
	return nil
}

// checkTunnel returns why s is refused as a tunnelled server, nil if it is not.
func checkTunnel(service lvs.ServiceKey, s lvs.RealServer) error {
	switch {
	case s.Port != service.Port && service.Mark == 0:
		return fmt.Errorf("port %d: %w: tunnelling does not change the port, %d", s.Port, lvs.ErrInvalid, service.Port)
	case s.Tunnel.Type > lvs.GRE:
		return fmt.Errorf("tunnel type %s: %w: want ipip, gue or gre", s.Tunnel.Type, lvs.ErrInvalid)
	case s.Tunnel.Checksum > lvs.RemoteChecksum:
		return fmt.Errorf("tunnel checksum %d: %w", s.Tunnel.Checksum, lvs.ErrInvalid)
	case s.Tunnel.Type == lvs.GUE && s.Tunnel.Port == 0:
		return fmt.Errorf("tunnel port 0: %w: gue needs the UDP port of the real server, 1 to 65535", lvs.ErrInvalid)
	case s.Tunnel.Type == lvs.GRE && s.Tunnel.Checksum == lvs.RemoteChecksum:
		return fmt.Errorf("remote checksum offload of gre: %w: it is of gue", lvs.ErrInvalid)
	}
	return nil
}

// checkUnicast refuses what is no address of one host that others can reach.
func checkUnicast(what string, addr netip.Addr) error {
	switch lvs.FaultOf(addr) {
	case lvs.NoFault:
		return nil
	case lvs.HasZone:
		return fmt.Errorf("%s %s: %w: want an address without a zone", what, addr, lvs.ErrInvalid)
	case lvs.MappedIPv4:
		return fmt.Errorf("%s %s: %w: want the IPv4 address, %s", what, addr, lvs.ErrInvalid, addr.Unmap())
	case lvs.LinkLocal:
		return fmt.Errorf("%s %s: %w: a link-local address does not say on which link", what, addr, lvs.ErrInvalid)
	}
	return fmt.Errorf("%s %s: %w: want a unicast address", what, addr, lvs.ErrInvalid)
}

func checkTimeouts(t lvs.Timeouts) error {
	for _, d := range []time.Duration{t.TCP, t.TCPFin, t.UDP} {
		if d < 0 || d > api.MaxTimeout || d%time.Second != 0 {
			return fmt.Errorf("timeout %s: %w: want whole seconds, 0 to 31 days", d, lvs.ErrInvalid)
		}
	}
	return nil
}

// isLocalAddress reports whether addr is one of this host, in the network
// namespace of the process.
func isLocalAddress(addr netip.Addr) (bool, error) {
	if addr.IsLoopback() {
		return true, nil
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false, fmt.Errorf("list the addresses of this host: %w", err)
	}
	return slices.ContainsFunc(addrs, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr().WithZone("") == addr
	}), nil
}
