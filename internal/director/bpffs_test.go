package director

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/testhost"
)

func TestMountedSource(t *testing.T) {
	const mountinfo = `22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw
23 22 0:20 / /sys/fs/bpf rw,nosuid shared:2 - bpf bpf rw,mode=700
24 22 0:21 / /run/fairlead/bpf rw,nosuid - bpf fairlead rw,mode=700
25 22 0:22 / /run/with\040space/bpf rw shared:3 master:1 - bpf fairlead rw
26 22 0:23 / /run/other rw - tmpfs fairlead rw
27 22 0:24 / /run/twice/bpf rw - bpf fairlead rw
28 27 0:25 / /run/twice/bpf rw - bpf bpf rw
nonsense
`
	for _, test := range []struct{ dir, want string }{
		{"/run/fairlead/bpf", "fairlead"},
		{"/run/with space/bpf", "fairlead"},
		{"/sys/fs/bpf", "bpf"},
		{"/run/other", ""},
		{"/run/twice/bpf", "bpf"},
		{"/run/fairlead", ""},
	} {
		got, err := mountedSource(strings.NewReader(mountinfo), test.dir)
		if err != nil || got != test.want {
			t.Errorf("%s: got %q, %v, want %q", test.dir, got, err, test.want)
		}
	}
}

func TestMountBPF(t *testing.T) {
	testhost.NeedRoot(t)
	dir := filepath.Join(t.TempDir(), "b p f")
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	for _, want := range []bool{true, false} {
		mounted, err := mountBPF(dir)
		if err != nil || mounted != want {
			t.Fatalf("mounted %t, %v, want %t", mounted, err, want)
		}
	}
	if is, err := isBPF(dir); err != nil || !is {
		t.Errorf("is a bpffs: %t, %v", is, err)
	}
	if plain, err := unmountOurs(dir); err != nil || !plain {
		t.Errorf("unmount ours: %t, %v", plain, err)
	}
	if plain, err := unmountOurs(dir); err != nil || !plain {
		t.Errorf("unmount nothing: %t, %v", plain, err)
	}
	if err := os.Remove(dir); err != nil {
		t.Error(err)
	}
}

func TestBPFOfAnAdministratorStays(t *testing.T) {
	testhost.NeedRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	if mounted, err := mountBPF(dir); err != nil || mounted {
		t.Errorf("mounted %t, %v, want what is there", mounted, err)
	}
	if plain, err := unmountOurs(dir); err != nil || plain {
		t.Errorf("unmount ours: %t, %v, want it left alone", plain, err)
	}
}
