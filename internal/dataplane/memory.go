package dataplane

import (
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// An array is a BPF array map in the director's memory: what is written to an
// element is seen by the data plane at once, each store by itself.
type array[T any] struct {
	elements []T
	memory   []byte
}

// mapArray maps an array map. The map's value must be laid out as T, a multiple
// of eight bytes: the kernel rounds elements up to that.
func mapArray[T any](m *ebpf.Map) (array[T], error) {
	size := int(unsafe.Sizeof(*new(T)))
	if int(m.ValueSize()) != size || size%8 != 0 {
		return array[T]{}, fmt.Errorf("map %s: value of %d bytes, want %d", m, m.ValueSize(), size)
	}
	return mapElements[T](m, int(m.MaxEntries()))
}

// mapVariable maps an array of that length that is a variable of the programs: the one value of
// the map.
func mapVariable[T any](m *ebpf.Map, length int) (array[T], error) {
	if size := length * int(unsafe.Sizeof(*new(T))); int(m.ValueSize()) != size {
		return array[T]{}, fmt.Errorf("map %s: value of %d bytes, want %d", m, m.ValueSize(), size)
	}
	return mapElements[T](m, length)
}

func mapElements[T any](m *ebpf.Map, length int) (array[T], error) {
	size := length * int(unsafe.Sizeof(*new(T)))
	pages := (size + unix.Getpagesize() - 1) &^ (unix.Getpagesize() - 1)
	memory, err := unix.Mmap(m.FD(), 0, pages, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return array[T]{}, fmt.Errorf("map %s into memory: %w", m, err)
	}
	return array[T]{
		elements: unsafe.Slice((*T)(unsafe.Pointer(&memory[0])), length),
		memory:   memory,
	}, nil
}

func (a array[T]) unmap() error {
	if a.memory == nil {
		return nil
	}
	return unix.Munmap(a.memory)
}

// gracePeriod returns when every packet that is in the data plane now has left
// it. MEMBARRIER_CMD_GLOBAL waits for an RCU grace period (membarrier(2)), and
// XDP programs run inside an RCU read-side section.
func gracePeriod() error {
	const membarrierCmdGlobal = 1
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierCmdGlobal, 0, 0); errno != 0 {
		return fmt.Errorf("wait for the data plane to leave old configuration: membarrier: %w", errno)
	}
	return nil
}
