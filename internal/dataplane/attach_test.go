package dataplane

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// enterNamespace runs the rest of a test in a network namespace of its own, with
// two veth pairs: a0 and b0 here, a1 and b1 their other ends.
func enterNamespace(t *testing.T) {
	t.Helper()
	testhost.EnterNamespace(t)
	addVeth(t, "a0", "a1")
	addVeth(t, "b0", "b1")
}

func addVeth(t *testing.T, name, peer string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peer}); err != nil {
		t.Fatalf("add veth %s: %v", name, err)
	}
}

func deleteLink(t *testing.T, name string) {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkDel(l)
	}
	if err != nil {
		t.Fatalf("delete %s: %v", name, err)
	}
}

// attachedTo is the program on an interface, and how it is attached; 0 is none.
func attachedTo(t *testing.T, name string) (program uint32, mode uint32) {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	xdp := l.Attrs().Xdp
	if xdp == nil || !xdp.Attached {
		return 0, 0
	}
	return xdp.ProgId, xdp.AttachMode
}

// waitDetached waits until an interface has no program: the kernel lets go of a
// link that nobody holds any more a moment later.
func waitDetached(t *testing.T, name string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		program, _ := attachedTo(t, name)
		if program == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("program %d is still on %s", program, name)
		}
		runtime.Gosched()
	}
}

// Attach modes of if_link.h.
const (
	attachedNative  = 1
	attachedGeneric = 2
)

func openMode(t *testing.T, dir string, mode Mode) *Plane {
	t.Helper()
	cfg := Config{PinDir: dir, Connections: 1, Mode: mode}
	state := filepath.Join(dir, stateDir)
	var p *Plane
	_, err := os.Stat(state)
	if err == nil || mode == ModeTC {
		p, err = Open(cfg)
	} else {
		p, err = loadedPlanes.create(t, cfg, state)
		t.Cleanup(func() { mustDetach(t, dir) })
	}
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// mustDetach removes all that is pinned below a directory, and waits until no packet is
// at the programs.
func mustDetach(t *testing.T, dir string) {
	t.Helper()
	attached, err := os.ReadDir(filepath.Join(dir, linksDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := Unload(dir); err != nil {
		t.Fatal(err)
	}
	for _, link := range attached {
		if _, err := net.InterfaceByName(link.Name()); err == nil {
			waitDetached(t, link.Name())
		}
	}
	if err := gracePeriod(); err != nil {
		t.Fatal(err)
	}
}

func mustAttach(t *testing.T, p *Plane, names ...string) []Attachment {
	t.Helper()
	attached, err := p.Attach(names)
	if err != nil {
		t.Fatal(err)
	}
	if len(attached) != len(names) {
		t.Fatalf("attached to %v, want %v", attached, names)
	}
	return attached
}

func TestAttachModes(t *testing.T) {
	for _, test := range []struct {
		ask, want Mode
		kernel    uint32
	}{
		{ModeAuto, ModeNative, attachedNative},
		{ModeNative, ModeNative, attachedNative},
		{ModeGeneric, ModeGeneric, attachedGeneric},
	} {
		t.Run(string(test.ask), func(t *testing.T) {
			dir := testhost.MountBPF(t)
			enterNamespace(t)
			p := openMode(t, dir, test.ask)
			got := mustAttach(t, p, "a0")[0]
			in, err := net.InterfaceByName("a0")
			if err != nil {
				t.Fatal(err)
			}
			if want := (Attachment{"a0", in.Index, test.want}); got != want {
				t.Errorf("attached %+v, want %+v", got, want)
			}
			if _, mode := attachedTo(t, "a0"); mode != test.kernel {
				t.Errorf("the kernel says mode %d, want %d", mode, test.kernel)
			}
			told := p.view.interfaces.elements[interfaceSlot(in.Index)]
			if told.Ifindex != uint32(in.Index) || lvs.MAC(told.Mac) != lvs.MAC(in.HardwareAddr) || told.TxIfindex != 0 {
				t.Errorf("the data plane knows %+v of veth %+v", told, in)
			}
		})
	}
}

// A take-over replaces the program in the link that is there: the interface is
// never without one.
func TestTakeOverReplacesTheProgram(t *testing.T) {
	dir := testhost.MountBPF(t)
	enterNamespace(t)
	p := openMode(t, dir, ModeGeneric)
	mustAttach(t, p, "a0", "b0")
	before, _ := attachedTo(t, "a0")
	link := linkID(t, p, "a0")
	mustClose(t, p)
	if still, _ := attachedTo(t, "a0"); still != before {
		t.Errorf("after Close program %d is attached, want %d", still, before)
	}

	p = openMode(t, dir, ModeAuto)
	if still, _ := attachedTo(t, "a0"); still != before {
		t.Errorf("before Attach program %d is attached, want the old one, %d", still, before)
	}
	got := mustAttach(t, p, "a0")
	if after, _ := attachedTo(t, "a0"); after == before || after == 0 {
		t.Errorf("after Attach program %d is attached, was %d", after, before)
	}
	if id := linkID(t, p, "a0"); id != link {
		t.Errorf("link %d, want the one that was there, %d", id, link)
	}
	if got[0].Mode != ModeGeneric {
		t.Errorf("mode %s, want the link's, generic", got[0].Mode)
	}
	// b0 was not asked for any more.
	waitDetached(t, "b0")
	mustAttach(t, p)
	waitDetached(t, "a0")
	for i, in := range p.view.interfaces.elements {
		if in != (directorInterface{}) {
			t.Errorf("slot %d still holds %+v", i, in)
		}
	}
}

func linkID(t *testing.T, p *Plane, name string) uint32 {
	t.Helper()
	info, err := p.links[name].link.Info()
	if err != nil {
		t.Fatal(err)
	}
	return uint32(info.ID)
}

func TestUnloadDetaches(t *testing.T) {
	dir := testhost.MountBPF(t)
	enterNamespace(t)
	p := openMode(t, dir, ModeAuto)
	mustAttach(t, p, "a0")
	mustClose(t, p)
	if err := Unload(dir); err != nil {
		t.Fatal(err)
	}
	waitDetached(t, "a0")
}

// An interface of the same name may be another one: made anew while the director
// runs, or while it does not.
func TestInterfaceMadeAnew(t *testing.T) {
	dir := testhost.MountBPF(t)
	enterNamespace(t)
	p := openMode(t, dir, ModeAuto)
	mustAttach(t, p, "a0")
	deleteLink(t, "a0")
	addVeth(t, "a0", "a1")
	mustAttach(t, p, "a0")
	if prog, _ := attachedTo(t, "a0"); prog == 0 {
		t.Error("made anew while the director runs: no program is attached")
	}

	mustClose(t, p)
	deleteLink(t, "a0")
	p = openMode(t, dir, ModeAuto)
	addVeth(t, "a0", "a1")
	mustAttach(t, p, "a0")
	if prog, _ := attachedTo(t, "a0"); prog == 0 {
		t.Error("made anew while it does not: no program is attached")
	}
}

func TestAttachRefusals(t *testing.T) {
	dir := testhost.MountBPF(t)
	enterNamespace(t)
	p := openMode(t, dir, ModeAuto)
	mustAttach(t, p, "a0")
	for _, test := range []struct {
		name  string
		names []string
		want  error
	}{
		{"no such interface", []string{"a0", "nowhere"}, nil},
		{"loopback", []string{"lo"}, lvs.ErrInvalid},
		{"twice", []string{"a0", "a0"}, nil},
	} {
		attached, err := p.Attach(test.names)
		if err == nil || test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: %v, %v", test.name, attached, err)
		}
		if prog, _ := attachedTo(t, "a0"); prog == 0 {
			t.Fatalf("%s: a0 lost its program", test.name)
		}
		t.Log(err)
	}
}

// The data plane learns of another MAC or IPv6 address when it is told to.
func TestRefreshInterfaces(t *testing.T) {
	dir := testhost.MountBPF(t)
	enterNamespace(t)
	p := openMode(t, dir, ModeAuto)
	index := mustAttach(t, p, "a0")[0].Index
	l, err := netlink.LinkByName("a0")
	if err != nil {
		t.Fatal(err)
	}
	mac := lvs.MAC{2, 9, 9, 9, 9, 9}
	if err := netlink.LinkSetHardwareAddr(l, mac[:]); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"2001:db8:2::99/128", "2001:db8:9::1/64"} {
		addr, err := netlink.ParseAddr(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.AddrAdd(l, addr); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.RefreshInterfaces(); err != nil {
		t.Fatal(err)
	}
	told := p.view.interfaces.elements[interfaceSlot(index)]
	if lvs.MAC(told.Mac) != mac {
		t.Errorf("the data plane knows MAC %s, want %s", lvs.MAC(told.Mac), mac)
	}
	// Not the /128, which may be a VIP.
	if got := fromAddress(told.Address6).String(); got != "2001:db8:9::1" {
		t.Errorf("the data plane answers as %s", got)
	}
	deleteLink(t, "a0")
	if err := p.RefreshInterfaces(); err == nil {
		t.Error("an interface that is gone was refreshed")
	}
}
