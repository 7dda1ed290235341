package journey

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"
)

// WriteTable writes the story as a table for people. A MAC address, or an address with its
// port, that the host changed on the packet's way through it is marked with a star. Ports are
// told where any of them was.
func (st Story) WriteTable(w io.Writer) error {
	rows := [][]string{{"STEP", "AT", "", "WHAT", "SOURCE MAC", "", "", "DESTINATION MAC", "", "SOURCE IP", "", "DESTINATION IP"}}
	translated := st.Translated()
	for _, step := range st.Steps {
		rows = append(rows, step.row(translated))
	}
	widths := widths(rows)
	out := bufio.NewWriter(w)
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				line.WriteString(pad + cell)
				continue
			}
			line.WriteString(gap(i) + cell + pad)
		}
		fmt.Fprintln(out, strings.TrimRight(line.String(), " "))
	}
	return out.Flush()
}

// Translated reports whether a host has changed an address or a port.
func (st Story) Translated() bool {
	return slices.ContainsFunc(st.Steps, func(s Step) bool { return s.NewSource || s.NewDestination })
}

func (s Step) row(ports bool) []string {
	what := s.What
	switch {
	case s.Detail == "":
	case strings.HasSuffix(s.Detail, "?"), strings.HasSuffix(s.Detail, " is here"):
		what += ": " + s.Detail
	default:
		what += ", " + s.Detail
	}
	if s.Tunnel != "" {
		what += ", in " + Outer{Tunnel: s.Tunnel, Source: *s.OuterSource, Destination: *s.OuterDestination}.String()
	}
	arrow := "<-"
	if s.Direction == Out {
		arrow = "->"
	}
	source, destination := orHyphen(s.Source), orHyphen(s.Destination)
	if ports {
		source = star(s.NewSource) + withPort(s.Source, s.SourcePort)
		destination = star(s.NewDestination) + withPort(s.Destination, s.DestinationPort)
	}
	return []string{
		fmt.Sprint(s.Step), s.At, arrow, what,
		star(s.NewSourceMAC) + s.SourceMAC, s.SourceHost, "->",
		star(s.NewDestinationMAC) + s.DestinationMAC, s.DestinationHost,
		source, "->", destination,
	}
}

// orHyphen writes what a frame that is not IP lacks as a hyphen.
func orHyphen(a netip.Addr) string {
	if !a.IsValid() {
		return "-"
	}
	return a.String()
}

func withPort(a netip.Addr, port uint16) string {
	if port == 0 {
		return orHyphen(a)
	}
	return netip.AddrPortFrom(a, port).String()
}

func star(changed bool) string {
	if changed {
		return "*"
	}
	return " "
}

// gap returns what stands before the column: a host's name and an arrow stand
// close to what they belong to.
func gap(column int) string {
	switch column {
	case 2, 5, 6, 7, 8, 10, 11:
		return " "
	}
	return "  "
}

func widths(rows [][]string) []int {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	return widths
}
