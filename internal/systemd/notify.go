// Package systemd tells a service manager how a daemon is.
package systemd

import (
	"fmt"
	"net"
)

// Notify tells the service manager that listens on the datagram socket (see
// sd_notify(3); "" is nobody) of a change of state, like "READY=1". A leading @
// stands for the abstract name space.
func Notify(socket, state string) error {
	if socket == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify service manager: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify service manager: %w", err)
	}
	return nil
}
