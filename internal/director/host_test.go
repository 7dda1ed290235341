package director

import (
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMissingCapabilities(t *testing.T) {
	const (
		bpf   = 1 << unix.CAP_BPF
		admin = 1 << unix.CAP_NET_ADMIN
		raw   = 1 << unix.CAP_NET_RAW
		sys   = 1 << unix.CAP_SYS_ADMIN
	)
	for _, test := range []struct {
		effective uint64
		want      []string
	}{
		{0, []string{"CAP_BPF", "CAP_NET_ADMIN", "CAP_NET_RAW"}},
		{bpf | admin | raw, nil},
		{sys | admin | raw, nil},
		{bpf | admin, []string{"CAP_NET_RAW"}},
		{sys | bpf, []string{"CAP_NET_ADMIN", "CAP_NET_RAW"}},
	} {
		if got := missingCapabilities(test.effective); !slices.Equal(got, test.want) {
			t.Errorf("%#x: got %v, want %v", test.effective, got, test.want)
		}
	}
}

func TestNotify(t *testing.T) {
	if err := notify("", "READY=1"); err != nil {
		t.Errorf("nobody to tell: %v", err)
	}
	if err := notify(filepath.Join(t.TempDir(), "nowhere"), "READY=1"); err == nil {
		t.Error("a socket that is not there")
	}
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), "@fairlead-" + t.Name()} {
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if err := notify(name, "READY=1"); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := l.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		var buffer [64]byte
		n, err := l.Read(buffer[:])
		if err != nil || string(buffer[:n]) != "READY=1" {
			t.Errorf("%s: got %q, %v", name, buffer[:n], err)
		}
	}
}
