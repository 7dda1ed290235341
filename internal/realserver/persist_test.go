package realserver

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func (h *host) read(name string) string {
	h.t.Helper()
	text, err := os.ReadFile(filepath.Join(h.config.Root, name))
	must(h.t, "read "+name, err)
	return string(text)
}

func (h *host) mustPersist(request Request) {
	h.t.Helper()
	must(h.t, "up --persist", h.with(nil, func(r *RealServer) error {
		_, err := r.Up(request, true)
		return err
	}))
}

// reboot takes away what a boot does: all that the kernel knows, and the run
// directory. Then it does what systemd-sysctl does.
func (h *host) reboot() *host {
	h.t.Helper()
	booted, _ := newServer(h.t)
	booted.config.Root = h.config.Root
	booted.shell("sysctl -p " + filepath.Join(h.config.Root, sysctlFile))
	return booted
}

func TestPersist(t *testing.T) {
	h, _ := newServer(t)
	before := h.everything()
	h.mustPersist(both)
	if text := h.read(sysctlFile); !strings.HasPrefix(text, mark) || strings.Count(text, "arp_ignore = 1\n") != 3 ||
		strings.Count(text, "arp_announce = 2\n") != 3 {
		t.Errorf("sysctl.d: %q", text)
	}
	if text := h.read(unitFile); text != mark+unit("/usr/bin/fairlead") {
		t.Errorf("unit: %q", text)
	}
	if link, err := os.Readlink(filepath.Join(h.config.Root, unitLink)); err != nil || link != unitFile {
		t.Errorf("unit is enabled by %q, %v", link, err)
	}
	files := h.read(sysctlFile) + h.read(persistedState)
	h.mustPersist(both)
	if again := h.read(sysctlFile) + h.read(persistedState); again != files {
		t.Errorf("the second time: %q, want %q", again, files)
	}

	booted := h.reboot()
	plan := booted.mustUp(Request{})
	if want := []string{"192.0.2.100/32 on lo: added", "2001:db8::100/128 on lo: added"}; !slices.Equal(plan.Changes(), want) {
		t.Errorf("up after a boot: %q, want %q", plan.Changes(), want)
	}
	booted.mustPersist(Request{VIPs: []netip.Addr{vip4b}})
	if text := booted.read(persistedState); !strings.Contains(text, vip4.String()) || !strings.Contains(text, vip4b.String()) {
		t.Errorf("persisted: %s", text)
	}
	if text := booted.read(sysctlFile); !strings.Contains(files, text) {
		t.Errorf("sysctl.d after a boot: %q", text)
	}
	booted.mustDown()
	fresh, _ := newServer(t)
	same(t, "down --persist after a boot", arpOnly(fresh.everything()), arpOnly(booted.everything()))

	h.mustDown()
	same(t, "up and down --persist", before, h.everything())
}

// arpOnly returns the lines on ARP settings and on the files that are left.
func arpOnly(text string) string {
	return strings.Join(slices.DeleteFunc(strings.Split(text, "\n"), func(line string) bool {
		return !strings.Contains(line, "/arp_ignore") && !strings.Contains(line, "/arp_announce") && !strings.Contains(line, "fairlead")
	}), "\n")
}

// A unit that a package has brought is enabled, not written.
func TestPersistPackaged(t *testing.T) {
	h, _ := newServer(t)
	packaged := filepath.Join(h.config.Root, packagedUnits[0])
	must(t, "make directory", os.MkdirAll(filepath.Dir(packaged), 0o755))
	must(t, "write unit", os.WriteFile(packaged, []byte(unit("/usr/bin/fairlead")), 0o644))
	before := h.everything()
	h.mustPersist(both)
	if link, err := os.Readlink(filepath.Join(h.config.Root, unitLink)); err != nil || link != packagedUnits[0] {
		t.Errorf("unit is enabled by %q, %v", link, err)
	}
	if _, err := os.Stat(filepath.Join(h.config.Root, unitFile)); err == nil {
		t.Error("the packaged unit is shadowed")
	}
	h.mustDown()
	same(t, "up and down --persist", before, h.everything())
}

func TestPersistOverSomeoneElses(t *testing.T) {
	h, _ := newServer(t)
	path := filepath.Join(h.config.Root, sysctlFile)
	must(t, "make directory", os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, "write", os.WriteFile(path, []byte("net.ipv4.ip_forward = 1\n"), 0o644))
	before := h.everything()
	err := h.with(nil, func(r *RealServer) error {
		_, err := r.Up(both, true)
		return err
	})
	if err == nil || !strings.Contains(err.Error(), sysctlFile) {
		t.Errorf("up --persist: %v", err)
	}
	same(t, "refused", before, h.everything())
	h.mustDown()
	if text := h.read(sysctlFile); text != "net.ipv4.ip_forward = 1\n" {
		t.Errorf("down --persist left %q", text)
	}
}

func TestPackagedUnitIsOurs(t *testing.T) {
	packaged, err := os.ReadFile("../../packaging/fairlead-realserver.service")
	must(t, "read", err)
	if string(packaged) != unit("/usr/bin/fairlead") {
		t.Errorf("packaging/fairlead-realserver.service is\n%s\nwant\n%s", packaged, unit("/usr/bin/fairlead"))
	}
}
