// Package testhost gives tests what they need of the host that they run on: privileges,
// network namespaces and file systems of their own, which end with the test.
package testhost

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// NeedRoot skips a test that runs without root's privileges. In CI, which skips
// nothing, it fails.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	const why = "needs root, for network namespaces and BPF"
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// MountBPF returns the directory of a BPF file system of the test's own. Needs root.
func MountBPF(t testing.TB) string {
	t.Helper()
	NeedRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatalf("mount bpffs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount bpffs: %v", err)
		}
	})
	return dir
}

// A Namespace is a network namespace that ends with its test.
type Namespace struct {
	netns.NsHandle
}

// NewNamespace makes a namespace, in which lo is down. Needs root.
func NewNamespace(t testing.TB) Namespace {
	t.Helper()
	NeedRoot(t)
	type result struct {
		handle netns.NsHandle
		err    error
	}
	made := make(chan result)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		handle, err := netns.New()
		made <- result{handle, err}
	}()
	r := <-made
	if r.err != nil {
		t.Fatalf("make network namespace: %v", r.err)
	}
	t.Cleanup(func() {
		if err := r.handle.Close(); err != nil {
			t.Errorf("close network namespace: %v", err)
		}
	})
	return Namespace{r.handle}
}

// Do calls f on a thread in the namespace and returns its error. The thread ends with
// f; goroutines that f starts run elsewhere.
func (n Namespace) Do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if err := netns.Set(n.NsHandle); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// EnterNamespace moves the rest of a test to a new network namespace, on a thread of
// its own; the goroutines that it starts run elsewhere. Needs root.
func EnterNamespace(t testing.TB) Namespace {
	t.Helper()
	NeedRoot(t)
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		t.Fatalf("find own network namespace: %v", err)
	}
	own, err := netns.New()
	if err != nil {
		t.Fatalf("make network namespace: %v", err)
	}
	t.Cleanup(func() {
		if err := errors.Join(netns.Set(before), before.Close(), own.Close()); err != nil {
			t.Fatalf("leave network namespace: %v", err) // the thread stays locked, and ends with the test
		}
		runtime.UnlockOSThread()
	})
	return Namespace{own}
}

// Say answers each connection with fixed words, and hangs up, until the listener is
// closed with the test.
func Say(t testing.TB, l net.Listener, words string) {
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, words)
			conn.Close()
		}
	}()
}
