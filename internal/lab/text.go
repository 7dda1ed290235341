package lab

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/fairlead-lb/fairlead/internal/journey"
)

// WriteText writes the demonstration for people.
func (d Demonstration) WriteText(w io.Writer) error {
	var text bytes.Buffer
	server := d.Story.Server
	if server == "" {
		server = "no real server"
	}
	fmt.Fprintf(&text, "The journey of the first connection, %s to %s, answered by %s\n\n", d.Story.Client, d.Story.Virtual, server)
	if err := d.Story.WriteTable(&text); err != nil {
		return err
	}
	changed := "these MAC addresses, and no IP address"
	if d.Story.Translated() {
		changed = "these MAC addresses, and these IP addresses and ports"
	}
	fmt.Fprintf(&text, "\n* changed on the way through this host: %s\n\n", changed)
	fmt.Fprintf(&text, "ipvsadm -Ln\n\n%s\nipvsadm -Ln --stats\n\n%s\n", d.Listing, d.Statistics)

	fmt.Fprintf(&text, "Requests: %d sent, %d answered\n", d.Requests.Sent, d.Requests.Answered)
	names := slices.SortedFunc(maps.Keys(d.Requests.ByServer), byLengthAndName)
	for _, name := range names {
		fmt.Fprintf(&text, "  %-6s %6d\n", name, d.Requests.ByServer[name])
	}
	fmt.Fprintf(&text, "Reply packets through the director: %d\n\n", d.RepliesThroughDirector)

	width := 0
	for _, check := range d.Checks {
		width = max(width, len(check.Name))
	}
	for _, check := range d.Checks {
		result := "ok"
		if !check.OK {
			result = "FAIL"
		}
		fmt.Fprintf(&text, "%-4s  %-*s  %s\n", result, width, check.Name, check.Detail)
	}
	_, err := w.Write(text.Bytes())
	return err
}

// byLengthAndName puts rs2 before rs10.
func byLengthAndName(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

// Failed returns the names of the checks that failed.
func (d Demonstration) Failed() []string {
	var names []string
	for _, check := range d.Checks {
		if !check.OK {
			names = append(names, check.Name)
		}
	}
	return names
}

// WritePcapng writes the frames with one interface for each of the hosts.
func (d Demonstration) WritePcapng(w io.Writer, hosts []Host) error {
	var names []string
	for _, host := range hosts {
		names = append(names, host.Name)
	}
	return journey.WritePcapng(w, names, d.Frames)
}
