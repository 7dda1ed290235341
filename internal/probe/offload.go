package probe

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The commands of SIOCETHTOOL that switch one offload (linux/ethtool.h).
const (
	ethtoolTxChecksum = 0x17
	ethtoolTSO        = 0x1f
	ethtoolGSO        = 0x24
)

// finishInSoftware has the kernel finish packets before they leave by a device of the
// calling thread's namespace: a tunnel's checksum is of what is in it.
func finishInSoftware(device string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("switch offloads of %s off: %w", device, err)
	}
	defer unix.Close(fd)
	for _, command := range []uint32{ethtoolTSO, ethtoolGSO, ethtoolTxChecksum} {
		setting := struct{ command, value uint32 }{command: command}
		// struct ifreq: a name of 16 bytes and a union of 24.
		request := struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [24 - unsafe.Sizeof(uintptr(0))]byte
		}{data: unsafe.Pointer(&setting)}
		copy(request.name[:unix.IFNAMSIZ-1], device)
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
		if errno != 0 {
			return fmt.Errorf("switch offloads of %s off: %w", device, errno)
		}
	}
	return nil
}
