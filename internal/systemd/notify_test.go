package systemd

import (
	"net"
	"path/filepath"
	"testing"
	"time"
)

func TestNotify(t *testing.T) {
	if err := Notify("", "READY=1"); err != nil {
		t.Errorf("nobody to tell: %v", err)
	}
	if err := Notify(filepath.Join(t.TempDir(), "nowhere"), "READY=1"); err == nil {
		t.Error("a socket that is not there")
	}
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), "@fairlead-" + t.Name()} {
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if err := Notify(name, "READY=1"); err != nil {
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
