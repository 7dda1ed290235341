package main

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// offloadNothing turns off what a device would do for the kernel, so that frames
// show whole checksums. The device is one of the thread's namespace.
func offloadNothing(device string) error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	for _, command := range []uint32{unix.ETHTOOL_STXCSUM, unix.ETHTOOL_STSO, unix.ETHTOOL_SGSO, unix.ETHTOOL_SSG} {
		if err := ethtool(socket, device, command, 0); err != nil {
			return fmt.Errorf("ethtool command %#x of %s: %w", command, device, err)
		}
	}
	return nil
}

// ethtool carries out a command that takes one number.
func ethtool(socket int, device string, command, value uint32) error {
	argument := [2]uint32{command, value}
	request := struct { // struct ifreq
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&argument)}
	copy(request.name[:unix.IFNAMSIZ-1], device)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(socket), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return errno
	}
	return nil
}
