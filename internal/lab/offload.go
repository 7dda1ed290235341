package lab

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-lb/fairlead/internal/ethtool"
)

// A real network card completes what the kernel leaves to it: checksums and the
// cutting of large segments. A veth hands them on unfinished, which only another
// kernel that knows can take; a frame that XDP forwards would arrive broken.
func finishFramesInSoftware(device string) error {
	return ethtool.Set(device, 0, ethtool.TxChecksum, ethtool.TSO, ethtool.GSO)
}

// largestEthernet is the longest frame that a switch passes on.
const largestEthernet = 1514

// A veth takes frames that XDP redirects to it only when its receiving side polls,
// and it polls for GRO. But a switch puts no frames together, which would then pass
// where single ones are too large: so there is no room for two.
func receiveFromXDP(device string) error {
	if err := ethtool.Set(device, 1, ethtool.GRO); err != nil {
		return err
	}
	link, err := netlink.LinkByName(device)
	if err != nil {
		return fmt.Errorf("find %s: %w", device, err)
	}
	if err := errors.Join(netlink.LinkSetGROMaxSize(link, largestEthernet), netlink.LinkSetGROIPv4MaxSize(link, largestEthernet)); err != nil {
		return fmt.Errorf("limit what %s receives at once: %w", device, err)
	}
	return nil
}
