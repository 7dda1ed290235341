package lab

import (
	"fmt"
	"os"
	"unsafe"

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

// A veth takes frames that XDP redirects to it only when its receiving side polls,
// and it polls for GRO.
func receiveFromXDP(device string) error {
	return setOffloads(device, 1, ethtoolGRO)
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
