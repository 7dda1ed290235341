// The guest is the init of a user-mode Linux: it plays scenarios on that kernel's
// IPVS. Package kernel starts it.
package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/test/oracle/scenario"
)

// What the two sides exchange lies in the host's folder Folder.
const (
	folderVariable = "ORACLE_FOLDER"
	folder         = "/tmp/oracle"
	scenariosFile  = folder + "/scenarios"
	answersFile    = folder + "/answers"
)

// bootEnd is when the clock begins to stand still for a guest that computes:
// BOOT_END in ../clock/clock.c.
const bootEnd = 10000 * time.Second

// The thread goes from one network namespace into another.
func init() { runtime.LockOSThread() }

// memory is how much garbage may lie about: collecting it takes system calls, which
// are slow here, and a fresh page takes as long.
const memory = 64 << 20

func main() {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(memory)
	if err := run(); err != nil {
		fmt.Println("oracle:", err)
	} else {
		fmt.Println("oracle: done")
	}
	unix.Sync()
	fmt.Println("power off:", unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
}

func run() error {
	if err := mountAll(); err != nil {
		return err
	}
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return err
	}
	if err := loadModules("/usr/lib/uml/modules/" + strings.TrimSpace(string(release))); err != nil {
		return err
	}
	text, err := os.ReadFile(scenariosFile)
	if err != nil {
		return err
	}
	file, err := scenario.Parse(string(text), nil)
	if err != nil {
		return err
	}
	now, err := clock()
	if err != nil {
		return err
	}
	if err := sleep(bootEnd - now); err != nil {
		return err
	}
	world, err := newWorld()
	if err != nil {
		return err
	}
	var answers scenario.File
	for _, s := range file.Scenarios {
		played, err := world.play(s)
		if err != nil {
			return err
		}
		answers.Scenarios = append(answers.Scenarios, played)
	}
	return os.WriteFile(answersFile, []byte(answers.String()), 0o644)
}

// mountAll mounts what a system needs. The root is the host's own, read-only; the
// folder is the one place of the host that can be written.
func mountAll() error {
	for _, m := range []struct{ source, target, kind, data string }{
		{"proc", "/proc", "proc", ""},
		{"sys", "/sys", "sysfs", ""},
		{"run", "/run", "tmpfs", ""},
		{"tmp", "/tmp", "tmpfs", ""},
		{"none", folder, "hostfs", os.Getenv(folderVariable)},
	} {
		if m.target == folder {
			if err := os.Mkdir(folder, 0o755); err != nil {
				return err
			}
		}
		if err := unix.Mount(m.source, m.target, m.kind, 0, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return nil
}

// clock returns the guest's monotonic time.
func clock() (time.Duration, error) {
	var now unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	return time.Duration(now.Nano()), err
}

// nap sleeps for a moment, in which the Go runtime does not hand on the processor.
func nap(t time.Duration) {
	time := unix.NsecToTimespec(t.Nanoseconds())
	unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&time)), 0, 0)
}

func sleep(t time.Duration) error {
	left := unix.NsecToTimespec(t.Nanoseconds())
	for {
		// A signal of the Go runtime's interrupts it.
		if err := unix.Nanosleep(&left, &left); err != unix.EINTR {
			return err
		}
	}
}
