package ethtool_test

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/ethtool"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// withDevice runs f in a network namespace that has a device eth0.
func withDevice(t *testing.T, f func()) {
	t.Helper()
	err := testhost.NewNamespace(t).Do(func() error {
		err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "peer"})
		if err == nil {
			f()
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// The names of features are the kernel's.
func TestSetAndFeatures(t *testing.T) {
	withDevice(t, func() {
		for _, value := range []uint32{1, 0, 1} {
			if err := ethtool.Set("eth0", value, ethtool.TSO, ethtool.GRO); err != nil {
				t.Error(err)
				return
			}
			on, err := ethtool.Features("eth0")
			if err != nil {
				t.Error(err)
				return
			}
			for _, name := range []string{"rx-gro", "tx-tcp-segmentation", "tx-tcp6-segmentation"} {
				if got, known := on[name]; got != (value == 1) || !known {
					t.Errorf("set to %d: %s is %t, known %t", value, name, got, known)
				}
			}
			if on["rx-lro"] || on["rx-gro-hw"] {
				t.Errorf("set to %d: a veth has no such features: %v", value, on)
			}
		}
	})
}

func TestNoDevice(t *testing.T) {
	withDevice(t, func() {
		if err := ethtool.Set("none", 0, ethtool.TSO); !errors.Is(err, unix.ENODEV) {
			t.Errorf("set: got %v, want %v", err, unix.ENODEV)
		}
		if _, err := ethtool.Features("none"); !errors.Is(err, unix.ENODEV) {
			t.Errorf("features: got %v, want %v", err, unix.ENODEV)
		}
	})
}
