// Package ethtool asks the kernel what a network device does by itself, and tells it
// what to do, by SIOCETHTOOL. Devices are those of the calling thread's network
// namespace.
package ethtool

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Command sets one number of a device (linux/ethtool.h).
type Command uint32

// The commands that switch one offload on (1) or off (0).
const (
	TxChecksum    Command = unix.ETHTOOL_STXCSUM
	ScatterGather Command = unix.ETHTOOL_SSG
	TSO           Command = unix.ETHTOOL_STSO
	GSO           Command = unix.ETHTOOL_SGSO
	GRO           Command = unix.ETHTOOL_SGRO
)

// Set carries out commands in their order, each with the same value. After one that
// the kernel refuses it carries out no more; the error wraps the errno.
func Set(device string, value uint32, commands ...Command) error {
	s, err := open()
	if err != nil {
		return err
	}
	defer s.close()
	for _, command := range commands {
		setting := [2]uint32{uint32(command), value}
		if err := s.do(device, unsafe.Pointer(&setting)); err != nil {
			return fmt.Errorf("ethtool command %#x of %s: %w", uint32(command), device, err)
		}
	}
	return nil
}

// Features returns which features of a device are active, by the kernel's names
// ("rx-gro", "rx-lro"). The error wraps the errno.
func Features(device string) (map[string]bool, error) {
	s, err := open()
	if err != nil {
		return nil, err
	}
	defer s.close()
	on, err := s.features(device)
	if err != nil {
		return nil, fmt.Errorf("ethtool features of %s: %w", device, err)
	}
	return on, nil
}

// The set of strings that are features' names, and how long each is (linux/ethtool.h).
const (
	featureNames    = 4
	featureNameSize = 32
)

func (s socket) features(device string) (map[string]bool, error) {
	var counts struct {
		command, _ uint32
		sets       uint64
		count      uint32
	}
	counts.command, counts.sets = unix.ETHTOOL_GSSET_INFO, 1<<featureNames
	if err := s.do(device, unsafe.Pointer(&counts)); err != nil {
		return nil, err
	}
	const word, header = 32, 3
	words := (counts.count + word - 1) / word
	names := make([]uint32, header+counts.count*featureNameSize/4)
	names[0], names[1], names[2] = unix.ETHTOOL_GSTRINGS, featureNames, counts.count
	// Of each word of features: available, requested, active, never changed.
	const size, masks, active = 2, 4, 2
	states := make([]uint32, size+masks*words)
	states[0], states[1] = unix.ETHTOOL_GFEATURES, words
	if err := errors.Join(s.do(device, unsafe.Pointer(&names[0])), s.do(device, unsafe.Pointer(&states[0]))); err != nil {
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

// A socket is any: commands name their device.
type socket int

func open() (socket, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	return socket(fd), os.NewSyscallError("socket", err)
}

func (s socket) close() { unix.Close(int(s)) }

func (s socket) do(device string, command unsafe.Pointer) error {
	// struct ifreq: a name of 16 bytes and a union of 24.
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [24 - unsafe.Sizeof(uintptr(0))]byte
	}{data: command}
	copy(request.name[:unix.IFNAMSIZ-1], device)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return errno
	}
	return nil
}
