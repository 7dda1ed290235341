package ipvsadm

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// listConnections prints the connection table as it comes: millions of entries
// pass through one buffer.
func (inv *invocation) listConnections(line *commandLine) error {
	w := inv.stdout
	fmt.Fprint(w, "IPVS connection entries\n")
	if line.given.has(optPersistentConn) {
		fmt.Fprintf(w, "pro expire %-11s %-18s %-18s %-18s %-16s %s\n", "state", "source", "virtual", "destination", "pe name", "pe_data")
	} else {
		fmt.Fprintf(w, "pro expire %-11s %-18s %-18s %s\n", "state", "source", "virtual", "destination")
	}
	numeric, engines := line.given.has(optNumeric), line.given.has(optPersistentConn)
	return inv.director.Connections(inv.ctx, func(c lvs.Connection) error {
		_, err := w.Write(inv.appendConnection(w.AvailableBuffer(), &c, numeric, engines))
		return err
	})
}

// appendConnection writes one row, with what the template of a persistence engine is named by if that
// is asked for.
func (inv *invocation) appendConnection(b []byte, c *lvs.Connection, numeric, engines bool) []byte {
	b = endColumn(append(b, c.Protocol.String()...), len(b), 3)
	b = endColumn(appendMinutes(b, c.Expires), len(b), 6)
	b = endColumn(append(b, c.State.String()...), len(b), 11)
	b = endColumn(inv.appendHostPort(b, c.Client, c.Protocol, numeric), len(b), 18)
	b = endColumn(inv.appendHostPort(b, c.Virtual, c.Protocol, numeric), len(b), 18)
	if !engines || c.PersistenceEngine == "" {
		return append(inv.appendHostPort(b, c.Server, c.Protocol, numeric), '\n')
	}
	b = endColumn(inv.appendHostPort(b, c.Server, c.Protocol, numeric), len(b), 16)
	b = endColumn(append(b, c.PersistenceEngine...), len(b), 18)
	return append(append(b, c.PersistenceData...), '\n')
}

// endColumn writes blanks up to the width of a column that began at start, and one more.
func endColumn(b []byte, start, width int) []byte {
	const blanks = "                   "
	return append(b, blanks[:max(0, width-(len(b)-start))+1]...)
}

// appendMinutes writes a time as minutes and seconds, which are rounded down.
func appendMinutes(b []byte, d time.Duration) []byte {
	seconds := uint64(max(0, d) / time.Second)
	if seconds < 600 {
		b = append(b, '0')
	}
	b = strconv.AppendUint(b, seconds/60, 10)
	return append(b, ':', '0'+byte(seconds%60/10), '0'+byte(seconds%10))
}

func (inv *invocation) appendHostPort(b []byte, ap netip.AddrPort, protocol lvs.Protocol, numeric bool) []byte {
	if !numeric {
		return append(b, inv.hostPort(ap.Addr(), ap.Port(), protocol, false)...)
	}
	if ap.Addr().Is6() {
		b = append(b, '[')
		b = appendAddress(b, ap.Addr())
		b = append(b, ']')
	} else {
		b = appendIPv4(b, ap.Addr().As4())
	}
	b = append(b, ':')
	return strconv.AppendUint(b, uint64(ap.Port()), 10)
}

func appendIPv4(b []byte, raw [4]byte) []byte {
	return netip.AddrFrom4(raw).AppendTo(b)
}
