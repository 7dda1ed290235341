package director

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountSource is what a bpffs of ours is called in the list of mounts; it tells
// ours from an administrator's.
const mountSource = "fairlead"

// pinDir returns where the data plane of a run directory is pinned.
func pinDir(runDir string) string { return filepath.Join(runDir, "bpf") }

// mountBPF makes dir a bpffs if it is not one yet, and reports whether it had
// to.
func mountBPF(dir string) (mounted bool, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return false, fmt.Errorf("make bpffs: %w", err)
	}
	is, err := isBPF(dir)
	if err != nil || is {
		return false, err
	}
	err = unix.Mount(mountSource, dir, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700")
	switch {
	case errors.Is(err, unix.EPERM):
		return false, fmt.Errorf("mount bpffs on %s: %w: it needs CAP_SYS_ADMIN; "+
			"or mount it beforehand: mount -t bpf bpf %s", dir, err, dir)
	case err != nil:
		return false, fmt.Errorf("mount bpffs on %s: %w", dir, err)
	}
	return true, nil
}

func isBPF(dir string) (bool, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return false, fmt.Errorf("look at file system of %s: %w", dir, err)
	}
	return fs.Type == unix.BPF_FS_MAGIC, nil
}

// unmountOurs unmounts the bpffs on dir if a director mounted it, and reports
// whether dir is an ordinary directory then.
func unmountOurs(dir string) (plain bool, err error) {
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return false, fmt.Errorf("list mounts: %w", err)
	}
	defer mounts.Close()
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return false, fmt.Errorf("unmount bpffs: %w", err)
	}
	source, err := mountedSource(mounts, real)
	if err != nil {
		return false, err
	}
	switch source {
	case "":
		return true, nil
	case mountSource:
	default:
		return false, nil
	}
	if err := unix.Unmount(dir, 0); err != nil {
		return false, fmt.Errorf("unmount bpffs on %s: %w", dir, err)
	}
	return true, nil
}

// mountedSource returns the source of the topmost bpffs that mountinfo (see
// proc_pid_mountinfo(5)) has at dir, "" if there is none.
func mountedSource(mountinfo io.Reader, dir string) (string, error) {
	source := ""
	lines := bufio.NewScanner(mountinfo)
	for lines.Scan() {
		mount, super, ok := strings.Cut(lines.Text(), " - ")
		fields, superFields := strings.Fields(mount), strings.Fields(super)
		if !ok || len(fields) < 5 || len(superFields) < 2 {
			continue
		}
		if unescape(fields[4]) == dir && superFields[0] == "bpf" {
			source = unescape(superFields[1])
		}
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("list mounts: %w", err)
	}
	return source, nil
}

// unescape undoes the octal escapes of mountinfo: \040 is a space.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if code, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(code))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// inPrivateMounts reports whether this process sees other mounts than its
// eldest ancestor that can be asked, as a rule the first process of the system. A
// bpffs that is mounted then lives no longer than the processes that share the
// view.
func inPrivateMounts() bool {
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return false
	}
	eldest := own
	for pid := os.Getppid(); pid != 0; {
		seen, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
		if err != nil {
			break
		}
		eldest = seen
		if pid, err = parentOf(pid); err != nil {
			break
		}
	}
	return own != eldest
}

// parentOf returns the parent of a process, 0 if it has none (proc_pid_stat(5)).
func parentOf(pid int) (int, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	afterName := stat[bytes.LastIndexByte(stat, ')')+1:]
	fields := bytes.Fields(afterName)
	if len(fields) < 2 {
		return 0, fmt.Errorf("read parent of process %d: short line", pid)
	}
	return strconv.Atoi(string(fields[1]))
}
