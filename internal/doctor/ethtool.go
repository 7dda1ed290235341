package doctor

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The commands of SIOCETHTOOL and the set of strings that tell what a device does
// by itself (linux/ethtool.h).
const (
	ethtoolStrings      = 0x1b
	ethtoolStringCounts = 0x37
	ethtoolFeatures     = 0x3a
	featureNames        = 4
	featureNameSize     = 32
)

// features returns which features of the interface are active, by the kernel's
// names ("rx-gro", "rx-lro"). It works in the network namespace of the calling
// thread.
func features(device string) (map[string]bool, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	var counts struct {
		command, _ uint32
		sets       uint64
		count      uint32
	}
	counts.command, counts.sets = ethtoolStringCounts, 1<<featureNames
	if err := ethtool(fd, device, unsafe.Pointer(&counts)); err != nil {
		return nil, err
	}
	const word, header = 32, 3
	words := (counts.count + word - 1) / word
	names := make([]uint32, header+counts.count*featureNameSize/4)
	names[0], names[1], names[2] = ethtoolStrings, featureNames, counts.count
	// Of each word of features: available, requested, active, never changed.
	const size, masks, active = 2, 4, 2
	states := make([]uint32, size+masks*words)
	states[0], states[1] = ethtoolFeatures, words
	if err := errors.Join(ethtool(fd, device, unsafe.Pointer(&names[0])), ethtool(fd, device, unsafe.Pointer(&states[0]))); err != nil {
		return nil, err
	}
	on := map[string]bool{}
	text := unsafe.Slice((*byte)(unsafe.Pointer(&names[header])), counts.count*featureNameSize)
	for i := range counts.count {
		name, _, _ := bytes.Cut(text[i*featureNameSize:(i+1)*featureNameSize], []byte{0})
		on[string(name)] = states[size+i/word*masks+active]&(1<<(i%word)) != 0
	}
	return on, nil
}

func ethtool(fd int, device string, command unsafe.Pointer) error {
	// struct ifreq: a name of 16 bytes and a union of 24.
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [24 - unsafe.Sizeof(uintptr(0))]byte
	}{data: command}
	copy(request.name[:unix.IFNAMSIZ-1], device)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return fmt.Errorf("ethtool %s: %w", device, errno)
	}
	return nil
}

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
