package director

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/dataplane"
)

// A director hands over to one that can go on with what it has, and not to one that
// can't.
func TestHandOver(t *testing.T) {
	director, _ := newWire(t)
	runDir := newRunDir(t)
	client, ctx := connect(t, runDir)

	// Where nobody runs, there is nobody to ask.
	first, firstSaid := director.startDirectorAs(t, runDir, nil, takeOverVariable+"=1")
	if err := errors.Join(client.AddService(ctx, wlc(vip)), client.AddServer(ctx, vip, routed("192.0.2.11", 80))); err != nil {
		t.Fatal(err)
	}
	second, _ := director.startDirectorAs(t, runDir, nil, takeOverVariable+"=1")
	if err := first.Wait(); err != nil {
		t.Errorf("the director that handed over: %v", err)
	}
	if said := firstSaid.String(); !strings.Contains(said, fmt.Sprintf("pid %d", second.Process.Pid)) {
		t.Errorf("it does not say to whom:\n%s", said)
	}
	if !attached(t, director) {
		t.Error("forwarding ended")
	}
	service, err := client.Service(ctx, vip)
	if err != nil || len(service.Servers) != 1 {
		t.Errorf("of the second director: %+v, %v", service, err)
	}

	mustChangeLayout(t, director, runDir)
	said := director.fails(t, runDirVariable+"="+runDir, takeOverVariable+"=1")
	for _, want := range []string{"nothing was changed", "fairlead save --run-dir " + runDir, "fairlead director unload --run-dir " + runDir} {
		if !strings.Contains(said, want) {
			t.Errorf("a layout of another version: %q does not say %q", said, want)
		}
	}
	if _, err := client.Service(ctx, vip); err != nil {
		t.Errorf("the director went for one that can't take over: %v", err)
	}
	if err := second.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := second.Wait(); err != nil {
		t.Errorf("stop: %v", err)
	}
	director.unload(t, runDir)
}

// mustChangeLayout makes what is pinned look as if another version had made it: it
// takes a map away.
func mustChangeLayout(t *testing.T, h host, runDir string) {
	t.Helper()
	h.in(t, func() error { return unix.Unlink(filepath.Join(pinDir(runDir), "state", "bonds")) })
	if _, err := dataplane.Prepare(dataplane.Config{PinDir: pinDir(runDir)}); !errors.Is(err, dataplane.ErrLayout) {
		t.Fatalf("without a map: %v", err)
	}
}
