package lab

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The commands of SIOCETHTOOL that switch one offload (linux/ethtool.h).
const (
	ethtoolTxChecksum = 0x17
	ethtoolTSO        = 0x1f
	ethtoolGSO        = 0x24
	ethtoolGRO        = 0x2c
)

// A real network card completes what the kernel leaves to it: checksums and the
// cutting of large segments. A veth hands them on unfinished, which only another
// kernel that knows can take; a frame that XDP forwards would arrive broken.
func finishFramesInSoftware(device string) error {
	return setOffloads(device, 0, ethtoolTxChecksum, ethtoolTSO, ethtoolGSO)
}

// largestEthernet is the longest frame that a switch passes on.
const largestEthernet = 1514

// A veth takes frames that XDP redirects to it only when its receiving side polls,
// and it polls for GRO. But a switch puts no frames together, which would then pass
// where single ones are too large: so there is no room for two.
func receiveFromXDP(device string) error {
	if err := setOffloads(device, 1, ethtoolGRO); err != nil {
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

// setOffloads works in the network namespace of the calling thread.
func setOffloads(device string, value uint32, commands ...uint32) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	for _, command := range commands {
		if err := ethtool(fd, device, command, value); err != nil {
			return fmt.Errorf("ethtool %#x of %s: %w", command, device, err)
		}
	}
	return nil
}

func ethtool(fd int, device string, command, value uint32) error {
	setting := struct{ command, value uint32 }{command, value}
	// struct ifreq: a name of 16 bytes and a union of 24.
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [24 - unsafe.Sizeof(uintptr(0))]byte
	}{data: unsafe.Pointer(&setting)}
	copy(request.name[:unix.IFNAMSIZ-1], device)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return errno
	}
	return nil
}
