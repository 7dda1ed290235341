package api

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
)

// SocketName is the name of the API's socket in a run directory.
const SocketName = "director.sock"

// socketMode lets only the owner in.
const socketMode fs.FileMode = 0o600

// Listen makes the Unix socket path with mode 0600 and listens on it. A socket
// that is there already is replaced in one step; whether somebody still serves
// it is the caller's to know. Closing the listener leaves the file: who made it
// removes it.
//
// The socket is never open to others, not even for a moment: it is made in a
// directory that only the owner enters, and moved to its place with its mode
// set.
func Listen(path string) (net.Listener, error) {
	private, err := os.MkdirTemp(filepath.Dir(path), ".sock")
	if err != nil {
		return nil, fmt.Errorf("make socket %s: %w", path, err)
	}
	defer os.RemoveAll(private)
	unready := filepath.Join(private, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: unready, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("make socket %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(unready, socketMode); err != nil {
		l.Close()
		return nil, fmt.Errorf("make socket %s: %w", path, err)
	}
	if err := os.Rename(unready, path); err != nil {
		l.Close()
		return nil, fmt.Errorf("make socket %s: %w", path, err)
	}
	return l, nil
}
