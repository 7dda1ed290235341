package savefile

import (
	"fmt"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// localWords returns what parseLocal reads.
func localWords(local lvs.LocalAddress) string {
	return fmt.Sprintf("%s ports %s", local, local.Ports)
}

// parseLocal reads "ADDRESS[/PREFIX] ports A-B"; ports that are left out are the usual
// ones.
func parseLocal(words []string) (lvs.LocalAddress, error) {
	local := lvs.LocalAddress{Ports: lvs.DefaultLocalPorts}
	var err error
	if local.Prefix, err = lvs.ParseLocalPrefix(words[0]); err != nil {
		return local, err
	}
	c := clauses{words: words[1:]}
	for {
		name, err := c.next()
		switch {
		case err != nil:
			return local, err
		case name == "":
			return local, local.Check()
		case name != "ports":
			return local, fmt.Errorf("%q: want ports", name)
		}
		if local.Ports, err = c.ports(name); err != nil {
			return local, err
		}
	}
}
