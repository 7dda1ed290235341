package ipvsadm

import (
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// ipvsVersion is the version of IPVS that fairlead does as.
const ipvsVersion = "1.2.1"

// The widths to which the address and port of an IPv4 service or server are cut,
// as names can be long.
const (
	hostPortWidth = 28
	hostPortSize  = 59 // of any, IPv6 too
)

// list carries out -L and -S.
func (inv *invocation) list(line *commandLine) error {
	if line.given.has(optDaemon) {
		return nil // no sync daemon runs
	}
	if err := inv.reach(); err != nil {
		return err
	}
	var err error
	switch {
	case line.given.has(optConnection):
		err = inv.listConnections(line)
	case line.given.has(optService):
		err = inv.listService(line)
	case line.given.has(optTimeout):
		err = inv.listTimeouts()
	case line.command == cmdSave:
		err = inv.save(line)
	default:
		err = inv.listAll(line)
	}
	return refusal(line.command, err)
}

func (inv *invocation) listTimeouts() error {
	t, err := inv.director.Timeouts(inv.ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(inv.stdout, "Timeout (tcp tcpfin udp): %d %d %d\n", t.TCP/time.Second, t.TCPFin/time.Second, t.UDP/time.Second)
	return nil
}

func (inv *invocation) listService(line *commandLine) error {
	svc, err := inv.director.Service(inv.ctx, line.key())
	if err != nil {
		return err
	}
	table := newTable(inv, line.given)
	table.writeTitle()
	table.writeService(svc)
	return nil
}

func (inv *invocation) listAll(line *commandLine) error {
	size, err := inv.director.TableSize(inv.ctx)
	if err != nil {
		return err
	}
	services, err := inv.director.Services(inv.ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(inv.stdout, "IP Virtual Server version %s (size=%d)\n", ipvsVersion, size)
	table := newTable(inv, line.given)
	table.writeTitle()
	if !line.given.has(optNoSort) {
		sortBy(services, compareServices)
	}
	for _, svc := range services {
		table.writeService(svc)
	}
	return nil
}

// A table prints services and their servers in one of the layouts of -L.
type table struct {
	inv    *invocation
	w      io.Writer
	given  tokenSet
	layout token
}

// newTable chooses the layout; --stats wins over --rate, that over
// --thresholds, and so on.
func newTable(inv *invocation, given tokenSet) *table {
	t := &table{inv: inv, w: inv.stdout, given: given, layout: cmdNone}
	for _, layout := range []token{optStats, optRate, optThresholds, optPersistentConn, optTunInfo} {
		if given.has(layout) {
			t.layout = layout
			break
		}
	}
	return t
}

func (t *table) writeTitle() {
	const stats, wide, persistent = "%-33s %8s %8s %8s %8s %8s\n", "%-33s %-10s %-10s %-10s %-10s\n", "%-33s %-9s %-11s %-10s %-10s\n"
	const name, server = "Prot LocalAddress:Port", "  -> RemoteAddress:Port"
	switch t.layout {
	case optStats:
		fmt.Fprintf(t.w, stats, name, "Conns", "InPkts", "OutPkts", "InBytes", "OutBytes")
	case optRate:
		fmt.Fprintf(t.w, stats, name, "CPS", "InPPS", "OutPPS", "InBPS", "OutBPS")
	case optThresholds:
		fmt.Fprintf(t.w, wide, name, "Uthreshold", "Lthreshold", "ActiveConn", "InActConn")
	case optPersistentConn:
		fmt.Fprintf(t.w, persistent, name, "Weight", "PersistConn", "ActiveConn", "InActConn")
	case optTunInfo:
		fmt.Fprintf(t.w, "%s Scheduler Flags\n%s           Forward TunnelInfo    Weight ActiveConn InActConn\n", name, server)
		return
	default:
		fmt.Fprintf(t.w, "%s Scheduler Flags\n%s           Forward Weight ActiveConn InActConn\n", name, server)
		return
	}
	fmt.Fprintln(t.w, server)
}

// writeService prints a service and its servers.
func (t *table) writeService(svc lvs.ServiceStatus) {
	name := t.serviceName(svc.ServiceKey)
	switch t.layout {
	case optStats:
		fmt.Fprintf(t.w, "%-33s", name)
		t.writeCounters(svc.Counters)
	case optRate:
		fmt.Fprintf(t.w, "%-33s", name)
		t.writeCounters(lvs.Counters(svc.Rates))
	default:
		fmt.Fprintf(t.w, "%s %s", name, svc.Scheduler)
		if svc.SchedulerFlags != 0 {
			fmt.Fprintf(t.w, " (%s)", flagNames(svc.Service))
		}
		if svc.PersistenceTimeout != 0 {
			fmt.Fprintf(t.w, " persistent %d", svc.PersistenceTimeout/time.Second)
			if mask := maskName(svc.Service); mask != "" {
				fmt.Fprintf(t.w, " mask %s", mask)
			}
			if svc.PersistenceEngine != "" {
				fmt.Fprintf(t.w, " pe %s", svc.PersistenceEngine)
			}
		}
		if svc.OnePacket {
			fmt.Fprint(t.w, " ops")
		}
		fmt.Fprintln(t.w)
	}
	if !t.given.has(optNoSort) {
		sortBy(svc.Servers, compareServers)
	}
	for _, rs := range svc.Servers {
		t.writeServer(svc.Protocol, rs)
	}
}

func (t *table) writeServer(protocol lvs.Protocol, rs lvs.RealServerStatus) {
	name := t.inv.hostPort(rs.Address, rs.Port, protocol, t.given.has(optNumeric))
	if rs.Address.Is4() {
		name = cut(name, hostPortWidth)
	}
	fmt.Fprintf(t.w, "  -> %-28s", name)
	switch t.layout {
	case optStats:
		t.writeCounters(rs.Counters)
	case optRate:
		t.writeRates(rs.Rates)
	case optThresholds:
		fmt.Fprintf(t.w, " %-10d %-10d %-10d %-10d\n", rs.UpperThreshold, rs.LowerThreshold, rs.Active, rs.Inactive)
	case optPersistentConn:
		fmt.Fprintf(t.w, " %-9d %-11d %-10d %-10d\n", rs.Weight, rs.Persistent, rs.Active, rs.Inactive)
	case optTunInfo:
		fmt.Fprintf(t.w, " %-7s %-13s %-6d %-10d %-10d\n", rs.Method, tunnelName(rs.RealServer), rs.Weight, rs.Active, rs.Inactive)
	default:
		fmt.Fprintf(t.w, " %-7s %-6d %-10d %-10d\n", rs.Method, rs.Weight, rs.Active, rs.Inactive)
	}
}

// writeCounters prints counters whole; ipvsadm shows connections and packets
// modulo 2^32.
func (t *table) writeCounters(c lvs.Counters) {
	exact := t.given.has(optExact)
	for _, n := range []uint64{c.Connections, c.InPackets, c.OutPackets, c.InBytes, c.OutBytes} {
		fmt.Fprint(t.w, scaled(n, exact))
	}
	fmt.Fprintln(t.w)
}

// writeRates prints the rates of a real server; unlike a service's, only those of
// bytes are scaled.
func (t *table) writeRates(r lvs.Rates) {
	exact := t.given.has(optExact)
	fmt.Fprintf(t.w, " %8d %8d %8d%s%s\n", r.Connections, r.InPackets, r.OutPackets, scaled(r.InBytes, exact), scaled(r.OutBytes, exact))
}

// scaled writes n in a column of nine, with thousands cut off until it fits;
// exact keeps them, and a blank before.
func scaled(n uint64, exact bool) string {
	switch {
	case exact || n < 1e8:
		return fmt.Sprintf(" %8d", n)
	case n < 1e9:
		return fmt.Sprintf("%8dK", n/1e3)
	case n < 1e11:
		return fmt.Sprintf("%8dM", n/1e6)
	case n < 1e14:
		return fmt.Sprintf("%8dG", n/1e9)
	}
	return fmt.Sprintf("%8dT", n/1e12)
}

// serviceName returns the first columns of a service's row.
func (t *table) serviceName(key lvs.ServiceKey) string {
	if key.Mark != 0 {
		name := "FWM  " + strconv.FormatUint(uint64(key.Mark), 10)
		if key.Address.Is6() {
			name += " IPv6"
		}
		return name
	}
	name := t.inv.hostPort(key.Address, key.Port, key.Protocol, t.given.has(optNumeric))
	if key.Address.Is4() {
		name = cut(name, hostPortWidth)
	}
	return fmt.Sprintf("%-4s %s", key.Protocol, name)
}

// hostPort writes an address and a port, as names unless numeric.
func (inv *invocation) hostPort(addr netip.Addr, port uint16, protocol lvs.Protocol, numeric bool) string {
	var b []byte
	if addr.Is6() {
		b = append(b, '[')
	}
	name, ok := "", false
	if !numeric {
		name, ok = inv.names.host(inv.ctx, addr)
	}
	if ok {
		b = append(b, name...)
	} else {
		b = appendAddress(b, addr)
	}
	if addr.Is6() {
		b = append(b, ']')
	}
	b = append(b, ':')
	name, ok = "", false
	if !numeric {
		name, ok = inv.names.service(port, protocol)
	}
	if ok {
		b = append(b, name...)
	} else {
		b = strconv.AppendUint(b, uint64(port), 10)
	}
	return cut(string(b), hostPortSize)
}

func cut(s string, size int) string { return s[:min(size, len(s))] }

// flagNames returns the scheduler's flags, with commas, or "". sh and mh have
// names of their own for them.
func flagNames(svc lvs.Service) string {
	owner := lvs.Scheduler("")
	if svc.Scheduler == lvs.SourceHashing || svc.Scheduler == lvs.MaglevHashing {
		owner = svc.Scheduler
	}
	list := ""
	for _, f := range schedulerFlags {
		if f.scheduler != owner || svc.SchedulerFlags&f.flag == 0 {
			continue
		}
		if list != "" {
			list += ","
		}
		list += f.name
	}
	return list
}

// maskName returns the persistence mask as -M takes it, or "" for the full one.
func maskName(svc lvs.Service) string {
	switch {
	case svc.PersistenceMask == lvs.FullPersistenceMask(svc.Address):
		return ""
	case svc.Address.Is4():
		return addrFromUint32(svc.PersistenceMask).String()
	}
	return strconv.FormatUint(uint64(svc.PersistenceMask), 10)
}

// tunnelName returns the column TunnelInfo.
func tunnelName(rs lvs.RealServer) string {
	if rs.Method != lvs.Tunnelling {
		return "n/a"
	}
	checksum := map[lvs.TunnelChecksum]string{lvs.NoChecksum: "-c", lvs.Checksum: "+c", lvs.RemoteChecksum: "r+c"}[rs.Tunnel.Checksum]
	switch rs.Tunnel.Type {
	case lvs.GUE:
		return fmt.Sprintf("%s:%d:%s", rs.Tunnel.Type, rs.Tunnel.Port, checksum)
	case lvs.GRE:
		return fmt.Sprintf("%s:%s", rs.Tunnel.Type, checksum)
	}
	return rs.Tunnel.Type.String()
}
