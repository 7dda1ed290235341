package savefile

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// Write writes the text of a state; [Read] reads it.
func Write(to io.Writer, state lvs.State) error {
	w := bufio.NewWriter(to)
	fmt.Fprintf(w, "%s %d\n", header, Version)
	for _, s := range state.Sysctls {
		fmt.Fprintf(w, "sysctl %s=%d\n", s.Name, s.Value)
	}
	for _, addr := range state.Peers {
		fmt.Fprintf(w, "peer %s\n", addr)
	}
	for _, rule := range state.Marks {
		fmt.Fprintf(w, "mark %d%s\n", rule.Mark, markWords(rule))
	}
	for _, local := range state.LocalAddresses {
		fmt.Fprintf(w, "local-address %s\n", localWords(local))
	}
	for _, s := range state.Services {
		writeService(w, s.Service)
		for _, own := range s.Sysctls {
			fmt.Fprintf(w, "  set %s=%d\n", own.Name, own.Value)
		}
		for _, server := range s.Servers {
			writeServer(w, server)
		}
	}
	return w.Flush()
}

func writeService(w io.Writer, s lvs.Service) {
	fmt.Fprintf(w, "service %s scheduler %s", s.Text(), s.Scheduler)
	if flags := s.Scheduler.FlagNames(s.SchedulerFlags); len(flags) > 0 {
		fmt.Fprintf(w, " flags %s", strings.Join(flags, ","))
	}
	if s.PersistenceTimeout != 0 {
		fmt.Fprintf(w, " persistence %d", s.PersistenceTimeout/time.Second)
		if mask := maskWord(s); mask != "" {
			fmt.Fprintf(w, " mask %s", mask)
		}
	}
	if s.PersistenceEngine != "" {
		fmt.Fprintf(w, " engine %s", s.PersistenceEngine)
	}
	if s.OnePacket {
		fmt.Fprint(w, " one-packet")
	}
	fmt.Fprintln(w)
}

func writeServer(w io.Writer, s lvs.RealServer) {
	fmt.Fprintf(w, "  server %s %s", s.RealServerKey, methodWords[s.Method])
	if s.Method == lvs.Tunnelling {
		fmt.Fprintf(w, " type %s port %d checksum %s", tunnelWords[s.Tunnel.Type], s.Tunnel.Port, checksumWords[s.Tunnel.Checksum])
	}
	if s.TOA {
		fmt.Fprint(w, " toa")
	}
	fmt.Fprintf(w, " weight %d", s.Weight)
	if s.UpperThreshold != 0 || s.LowerThreshold != 0 {
		fmt.Fprintf(w, " upper %d lower %d", s.UpperThreshold, s.LowerThreshold)
	}
	fmt.Fprintln(w)
}
