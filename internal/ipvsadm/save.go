package ipvsadm

import (
	"fmt"
	"strings"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// save prints the services and servers as command lines that -R takes. As
// ipvsadm's, they leave thresholds out.
func (inv *invocation) save(line *commandLine) error {
	services, err := inv.director.Services(inv.ctx)
	if err != nil {
		return err
	}
	numeric := line.given.has(optNumeric)
	sortBy(services, compareServices)
	for _, svc := range services {
		service := inv.serviceOption(svc.ServiceKey, numeric)
		inv.saveService(svc.Service, service)
		sortBy(svc.Servers, compareServers)
		for _, rs := range svc.Servers {
			inv.saveServer(rs.RealServer, service, inv.hostPort(rs.Address, rs.Port, svc.Protocol, numeric))
		}
	}
	return nil
}

// serviceOption returns the option that names a service. ipvsadm prints marks
// from 2147483648 as negative numbers, which no command line takes; here they are
// as they were given.
func (inv *invocation) serviceOption(key lvs.ServiceKey, numeric bool) string {
	switch {
	case key.Mark != 0 && key.Address.Is6():
		return fmt.Sprintf("-f %d -6", key.Mark)
	case key.Mark != 0:
		return fmt.Sprintf("-f %d", key.Mark)
	}
	option := map[lvs.Protocol]string{lvs.TCP: "-t", lvs.UDP: "-u", lvs.SCTP: "--sctp-service"}[key.Protocol]
	return option + " " + inv.hostPort(key.Address, key.Port, key.Protocol, numeric)
}

func (inv *invocation) saveService(svc lvs.Service, service string) {
	w := inv.stdout
	fmt.Fprintf(w, "-A %s -s %s", service, svc.Scheduler)
	if svc.PersistenceTimeout != 0 {
		fmt.Fprintf(w, " -p %d", svc.PersistenceTimeout/time.Second)
		if mask := maskName(svc); mask != "" {
			fmt.Fprintf(w, " -M %s", mask)
		}
	}
	if svc.PersistenceEngine != "" {
		fmt.Fprintf(w, " --pe %s", svc.PersistenceEngine)
	}
	if svc.OnePacket {
		fmt.Fprint(w, " -o")
	}
	if svc.SchedulerFlags != 0 {
		fmt.Fprintf(w, " -b %s", savedFlags(svc))
	}
	fmt.Fprintln(w)
}

// savedFlags returns the scheduler's flags as -b takes them. ipvsadm forgets the
// third flag of sh, and then prints a -b that -R refuses.
func savedFlags(svc lvs.Service) string {
	flags := flagNames(svc)
	if svc.Scheduler != lvs.SourceHashing || svc.SchedulerFlags&lvs.Flag3 == 0 {
		return flags
	}
	return strings.TrimPrefix(flags+",flag-3", ",")
}

func (inv *invocation) saveServer(rs lvs.RealServer, service, name string) {
	w := inv.stdout
	method := map[lvs.ForwardingMethod]string{
		lvs.Masquerading: "-m", lvs.Local: "-g", lvs.Tunnelling: "-i", lvs.DirectRouting: "-g", lvs.FullNAT: "--fullnat",
	}[rs.Method]
	fmt.Fprintf(w, "-a %s -r %s %s -w %d", service, name, method, rs.Weight)
	if rs.TOA {
		fmt.Fprint(w, " --toa")
	}
	if rs.Method == lvs.Tunnelling {
		checksum := map[lvs.TunnelChecksum]string{
			lvs.NoChecksum: "--tun-nocsum", lvs.Checksum: "--tun-csum", lvs.RemoteChecksum: "--tun-remcsum",
		}[rs.Tunnel.Checksum]
		fmt.Fprintf(w, " --tun-type %s", rs.Tunnel.Type)
		switch rs.Tunnel.Type {
		case lvs.GUE:
			fmt.Fprintf(w, " --tun-port %d %s", rs.Tunnel.Port, checksum)
		case lvs.GRE:
			fmt.Fprintf(w, " %s", checksum)
		}
	}
	fmt.Fprintln(w)
}
