package director

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// needed are the capabilities without which a director cannot work. That to
// mount a bpffs is not among them: it may be mounted already.
var needed = [...]struct {
	bit  uint
	name string
}{
	{unix.CAP_BPF, "CAP_BPF"},
	{unix.CAP_PERFMON, "CAP_PERFMON"},
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"},
	{unix.CAP_NET_RAW, "CAP_NET_RAW"},
}

// checkPrivileges returns nil if the process may do what a director does.
func checkPrivileges() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData // low and high half
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	missing := missingCapabilities(uint64(sets[1].Effective)<<32 | uint64(sets[0].Effective))
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("%w: run this as root, or with CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_NET_RAW, "+
		"and CAP_SYS_ADMIN to mount a bpffs (missing: %s)", unix.EPERM, strings.Join(missing, ", "))
}

// missingCapabilities returns what an effective set lacks. CAP_SYS_ADMIN
// includes CAP_BPF and CAP_PERFMON (capabilities(7)).
func missingCapabilities(effective uint64) []string {
	if effective&(1<<unix.CAP_SYS_ADMIN) != 0 {
		effective |= 1<<unix.CAP_BPF | 1<<unix.CAP_PERFMON
	}
	var missing []string
	for _, c := range needed {
		if effective&(1<<c.bit) == 0 {
			missing = append(missing, c.name)
		}
	}
	return missing
}
