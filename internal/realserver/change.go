package realserver

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"strings"
)

// A kind tells what a subject is.
type kind string

// The kinds of subjects, and what their values are.
const (
	kindSysctl  kind = "sysctl"  // as written in /proc/sys
	kindAddress kind = "address" // of lo: present or absent
	kindFile    kind = "file"    // the whole contents; "" is no file
	kindLink    kind = "link"    // what a symbolic link says; "" is no link
	kindTunnel  kind = "tunnel"  // of an interface: its tunnel end (tunnel.go), or absent
)

// The values of an address.
const (
	present = "present"
	absent  = "absent"
)

// A subject is one thing of the host that has a value.
type subject struct {
	Kind kind   `json:"kind"`
	Name string `json:"name"`
}

func sysctl(name string) subject { return subject{kindSysctl, name} }

func (v VIP) subject() subject { return subject{kindAddress, v.host().String()} }

// conf returns the name of an interface's sysctl below /proc/sys.
func conf(family, name, key string) string { return "net/" + family + "/conf/" + name + "/" + key }

// confInterface returns the interface in a name that conf made.
func confInterface(name string) string { return path.Base(path.Dir(name)) }

// dotted returns a sysctl's name as people write it. A name with dots in it, of a
// VLAN for instance, keeps its slashes, which sysctl(8) takes as well.
func dotted(name string) string {
	if strings.Contains(name, ".") {
		return name
	}
	return strings.ReplaceAll(name, "/", ".")
}

// String names the subject as people do.
func (s subject) String() string {
	switch s.Kind {
	case kindSysctl:
		return dotted(s.Name)
	case kindAddress:
		return s.Name + " on lo"
	case kindTunnel:
		return "tunnel end on " + s.Name
	}
	return s.Name
}

// A setting is a subject and its value.
type setting struct {
	subject
	Value string `json:"value"`
}

// A change is one step: a subject gets another value.
type change struct {
	subject
	from, to string
	why      string // what the step is for, in a few words
}

// String tells the change to people.
func (c change) String() string {
	switch {
	case c.Kind == kindSysctl:
		return fmt.Sprintf("%s: %s -> %s", c.subject, c.from, c.to)
	case c.to == absent || c.to == "":
		return fmt.Sprintf("%s: removed", c.subject)
	case c.Kind == kindAddress:
		return fmt.Sprintf("%s: added", c.subject)
	case c.Kind == kindTunnel:
		return fmt.Sprintf("%s: attached: %s", c.subject, c.to)
	}
	return fmt.Sprintf("%s: written", c.subject)
}

// command returns the shell command that does the same.
func (c change) command() string {
	switch c.Kind {
	case kindSysctl:
		return fmt.Sprintf("sysctl -w %s=%s", dotted(c.Name), c.to)
	case kindAddress:
		return addressCommand(c.Name, c.to)
	case kindTunnel:
		return tunnelCommand(c.Name, c.to)
	case kindLink:
		if c.to == "" {
			return "rm " + c.Name
		}
		return fmt.Sprintf("mkdir -p %s && ln -sfn %s %s", path.Dir(c.Name), c.to, c.Name)
	}
	if c.to == "" {
		return "rm " + c.Name
	}
	return fmt.Sprintf("mkdir -p %s && cat >%s <<'EOF'\n%sEOF", path.Dir(c.Name), c.Name, c.to)
}

// tunnelCommand returns a command for each VIP: the program is fairlead's own.
func tunnelCommand(name, value string) string {
	if value == absent {
		return "ip link set dev " + name + " xdp off"
	}
	var commands []string
	for _, word := range strings.Fields(value) {
		vip, tunnel, _ := strings.Cut(word, "=")
		if _, err := netip.ParseAddr(vip); err != nil {
			continue
		}
		kind, port, hasPort := strings.Cut(tunnel, ":")
		command := fmt.Sprintf("fairlead realserver up --vip %s --interface %s --tunnel %s", vip, name, kind)
		if hasPort {
			command += " --tunnel-port " + port
		}
		commands = append(commands, command)
	}
	return strings.Join(commands, " && ")
}

func addressCommand(name, value string) string {
	command := "ip address add " + name + " dev lo"
	switch prefix := netip.MustParsePrefix(name); {
	case value == absent:
		return "ip address del " + name + " dev lo"
	case prefix.Addr().Is6():
		return command + " nodad preferred_lft 0"
	}
	return command + " scope host"
}

// A setter gives a subject a value, whole or not at all.
type setter func(s subject, value string) error

// apply makes the changes in order. If one fails, those before it are undone in
// reverse, and the error says what could not be.
func apply(changes []change, set setter) error {
	for i, c := range changes {
		if err := set(c.subject, c.to); err != nil {
			return errors.Join(fmt.Errorf("change %s: %w", c.subject, err), undo(changes[:i], set))
		}
	}
	return nil
}

// undo takes the changes back in reverse. What fails does not keep it from the rest.
func undo(changes []change, set setter) error {
	var errs []error
	for i := len(changes) - 1; i >= 0; i-- {
		if err := set(changes[i].subject, changes[i].from); err != nil {
			errs = append(errs, fmt.Errorf("undo %s: %w", changes[i].subject, err))
		}
	}
	return errors.Join(errs...)
}
