package dataplane

import (
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// A runner runs a program on millions of frames: with the one system call that each
// needs, and nothing to collect. It is one thread's at a time.
type runner struct {
	out     []byte
	context xdpContext
	attr    testRunAttr
}

// testRunAttr is the kernel's union bpf_attr for BPF_PROG_TEST_RUN (linux/bpf.h).
type testRunAttr struct {
	program, result   uint32
	lengthIn, room    uint32
	in, out           unsafe.Pointer
	repeat, duration  uint32
	contextIn         uint32
	contextRoom       uint32
	context, contexts unsafe.Pointer
}

// newRunner returns the runner of a program that sends no more than that many bytes.
func newRunner(program *ebpf.Program, most int) runner {
	return runner{
		out:     make([]byte, most),
		context: xdpContext{IngressIfindex: testIfindex},
		attr:    testRunAttr{program: uint32(program.FD())},
	}
}

// run returns the XDP action and the frame as it is then, which the next run overwrites.
func (r *runner) run(frame []byte) (action uint32, out []byte, err error) {
	r.context.DataEnd = uint32(len(frame))
	r.attr.lengthIn, r.attr.in = uint32(len(frame)), unsafe.Pointer(&frame[0])
	r.attr.room, r.attr.out = uint32(len(r.out)), unsafe.Pointer(&r.out[0])
	r.attr.contextIn, r.attr.context = uint32(unsafe.Sizeof(r.context)), unsafe.Pointer(&r.context)
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_TEST_RUN, uintptr(unsafe.Pointer(&r.attr)), unsafe.Sizeof(r.attr))
	if errno != 0 {
		return 0, nil, fmt.Errorf("run the program: %w", errno)
	}
	return r.attr.result, r.out[:r.attr.room], nil
}
