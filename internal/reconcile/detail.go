package reconcile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A difference tells parts that differ.
type difference []string

func (d *difference) part(name string, was, is any) {
	if before, after := fmt.Sprint(was), fmt.Sprint(is); before != after {
		*d = append(*d, fmt.Sprintf("%s %s -> %s", name, before, after))
	}
}

func (d difference) String() string { return strings.Join(d, ", ") }

func serviceDetail(was, is lvs.Service) string {
	var d difference
	d.part("scheduler", was.Scheduler, is.Scheduler)
	d.part("flags", flagText(was), flagText(is))
	d.part("persistence", was.PersistenceTimeout, is.PersistenceTimeout)
	if was.PersistenceTimeout != 0 && is.PersistenceTimeout != 0 {
		d.part("mask", maskText(was), maskText(is))
	}
	d.part("engine", orNone(was.PersistenceEngine), orNone(is.PersistenceEngine))
	d.part("one-packet", was.OnePacket, is.OnePacket)
	return d.String()
}

func flagText(s lvs.Service) string {
	return orNone(strings.Join(s.Scheduler.FlagNames(s.SchedulerFlags), ","))
}

func maskText(s lvs.Service) string {
	if s.Address.Is6() {
		return fmt.Sprint(s.PersistenceMask)
	}
	return fmt.Sprintf("%#x", s.PersistenceMask)
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

func serverDetail(was, is lvs.RealServer) string {
	var d difference
	d.part("method", was.Method, is.Method)
	if was.Method == lvs.Tunnelling && is.Method == lvs.Tunnelling {
		d.part("tunnel", tunnelText(was.Tunnel), tunnelText(is.Tunnel))
	}
	d.part("toa", was.TOA, is.TOA)
	d.part("weight", was.Weight, is.Weight)
	d.part("upper", was.UpperThreshold, is.UpperThreshold)
	d.part("lower", was.LowerThreshold, is.LowerThreshold)
	return d.String()
}

func tunnelText(t lvs.Tunnel) string {
	text := t.Type.String()
	if t.Port != 0 {
		text += fmt.Sprintf(":%d", t.Port)
	}
	return text + [...]string{"", " checksum", " remote checksum"}[t.Checksum]
}

// marksDetail tells which rules come and go.
func marksDetail(was, is []lvs.MarkRule) string {
	var come, gone int
	for _, rule := range is {
		if !slices.Contains(was, rule) {
			come++
		}
	}
	for _, rule := range was {
		if !slices.Contains(is, rule) {
			gone++
		}
	}
	if come == 0 && gone == 0 {
		return "in another order"
	}
	return fmt.Sprintf("%d new, %d gone", come, gone)
}
