package realserver

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// checkPrivileges returns nil if the process may change addresses and sysctls of
// its network namespace.
func checkPrivileges() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData // low and high half
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	if sets[0].Effective&(1<<unix.CAP_NET_ADMIN) == 0 {
		return fmt.Errorf("change a real server: %w: run this as root, or with CAP_NET_ADMIN", unix.EPERM)
	}
	return nil
}
