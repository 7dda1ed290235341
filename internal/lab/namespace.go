package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// A namespace is a network namespace that a bind mount keeps.
type namespace struct {
	handle netns.NsHandle
}

// createNamespace makes a network namespace and mounts it on path.
func createNamespace(path string) (namespace, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return namespace{}, err
	}
	if err := os.WriteFile(path, nil, 0o400); err != nil {
		return namespace{}, err
	}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("create network namespace %s: %w", path, err)
		}
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount network namespace %s: %w", path, err)
		}
		return nil
	})
	if err != nil {
		return namespace{}, err
	}
	return openNamespace(path)
}

// openNamespace opens what createNamespace made. A file without a namespace
// mounted on it is an error.
func openNamespace(path string) (namespace, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return namespace{}, &os.PathError{Op: "open network namespace", Path: path, Err: err}
	}
	if fs.Type != unix.NSFS_MAGIC {
		return namespace{}, fmt.Errorf("open network namespace %s: nothing is mounted there", path)
	}
	handle, err := netns.GetFromPath(path)
	if err != nil {
		return namespace{}, &os.PathError{Op: "open network namespace", Path: path, Err: err}
	}
	return namespace{handle}, nil
}

// do runs f on a thread inside the namespace. Sockets and processes that f makes
// stay there; goroutines that it starts are elsewhere.
func (n namespace) do(f func() error) error {
	return onThread(func() error {
		if err := netns.Set(n.handle); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}

func (n namespace) close() error { return n.handle.Close() }

// onThread runs f on an operating system thread that f may move to another
// network namespace. The thread goes on only if it could be moved back.
func onThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			runtime.UnlockOSThread()
			result <- fmt.Errorf("current network namespace: %w", err)
			return
		}
		defer home.Close()
		err = f()
		if back := netns.Set(home); back != nil {
			// The thread stays locked: it ends with this goroutine.
			result <- errors.Join(err, fmt.Errorf("leave network namespace: %w", back))
			return
		}
		runtime.UnlockOSThread()
		result <- err
	}()
	return <-result
}
