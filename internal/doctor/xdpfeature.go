package doctor

import (
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The kernel's netdev family (linux/netdev.h).
const (
	netdevGet         = 1
	netdevVersion     = 1
	netdevIndex       = 1
	netdevXDPFeatures = 3
	xdpBasic          = 1 << 0
)

// hasNativeXDP reports whether the interface's driver runs XDP programs itself, and
// whether the kernel tells: Linux 6.3 and newer do.
func hasNativeXDP(index int) (native, told bool) {
	family, err := netlink.GenlFamilyGet("netdev")
	if err != nil {
		return false, false
	}
	request := nl.NewNetlinkRequest(int(family.ID), 0)
	// The header's last two bytes are to be zero, which nl.Genlmsg leaves to chance.
	request.AddRawData([]byte{netdevGet, netdevVersion, 0, 0})
	request.AddRawData(nl.NewRtAttr(netdevIndex, nl.Uint32Attr(uint32(index))).Serialize())
	messages, err := request.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil || len(messages) != 1 || len(messages[0]) < nl.SizeofGenlmsg {
		return false, false
	}
	attributes, err := nl.ParseRouteAttr(messages[0][nl.SizeofGenlmsg:])
	if err != nil {
		return false, false
	}
	for _, a := range attributes {
		if a.Attr.Type == netdevXDPFeatures && len(a.Value) == 8 {
			return nl.NativeEndian().Uint64(a.Value)&xdpBasic != 0, true
		}
	}
	return false, false
}
