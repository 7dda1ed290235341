package realserver

import (
	"fmt"
	"io"
	"strings"
)

// WriteScript writes the plan as the shell commands that an administrator would
// type, in order. Run as they stand by a shell, they do what [RealServer.Up] does,
// but remember nothing.
func (p *Plan) WriteScript(w io.Writer) error {
	var script strings.Builder
	for _, point := range p.Points {
		switch {
		case point.OK:
			fmt.Fprintf(&script, "# as it must be: %s: %s\n", point.Name, point.Found)
		case len(point.changes) == 0:
			fmt.Fprintf(&script, "# %s (is: %s): %s\n%s\n", point.Name, point.Found, point.Why, point.Mend)
		}
		writeChanges(&script, point.changes)
	}
	writeChanges(&script, p.files)
	for _, v := range p.Exposed {
		fmt.Fprintf(&script, "# %s\n# %s\n", Exposure(v), Recall(v))
	}
	_, err := io.WriteString(w, script.String())
	return err
}

func writeChanges(script *strings.Builder, changes []change) {
	for _, c := range changes {
		fmt.Fprintf(script, "# %s\n%s\n", c.why, c.command())
	}
}

// Exposure says what it means that a VIP was on lo while ARP told where it is.
func Exposure(v VIP) string {
	return fmt.Sprintf("%s was on lo while this host's ARP told of it: neighbours may have learnt its MAC address "+
		"from here, and keep it for minutes or hours; on the director, tell them the right one:", v.Address)
}

// Recall returns the command that, on the director, makes neighbours learn the right
// MAC address of a VIP: a gratuitous ARP.
func Recall(v VIP) string { return fmt.Sprintf("arping -U -c 3 -I %s %s", v.Interface, v.Address) }
