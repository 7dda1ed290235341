package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// remove takes down everything in a lab's directory and the directory. It goes
// on after a failure, and returns all of them. It needs nothing of the lab but
// what is there: processes, namespaces and mounts may be gone, and the program
// that it was built by, too.
func remove(ctx context.Context, directory string, s state) error {
	var errs []error
	for _, p := range s.Processes {
		errs = append(errs, p.terminate(ctx))
	}
	errs = append(errs, killInhabitants(ctx, directory), unmountBelow(directory))
	if err := errors.Join(errs...); err != nil {
		// Something may still be mounted or running there: what the next run
		// needs to find it stays.
		return fmt.Errorf("take down lab %s: %w", filepath.Base(directory), err)
	}
	return removeFiles(directory)
}

// killInhabitants ends the processes that are in the lab's own namespaces:
// commands that were run on its hosts, and one that its builder had no time left
// to write down.
func killInhabitants(ctx context.Context, directory string) error {
	namespaces, err := labNamespaces(directory)
	if err != nil || len(namespaces) == 0 {
		return err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		p, err := newProcess("the lab", pid)
		if err != nil || !namespaces[inode(fmt.Sprintf("/proc/%d/ns/net", pid))] {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, termGrace)
		errs = append(errs, p.kill(ctx))
		cancel()
	}
	return errors.Join(errs...)
}

// labNamespaces returns the inodes of the namespaces that are mounted in the
// lab's directory; never the one of this process or of the first.
func labNamespaces(directory string) (map[uint64]bool, error) {
	paths, err := filepath.Glob(filepath.Join(directory, "netns", "*"))
	if err != nil {
		return nil, err
	}
	namespaces := map[uint64]bool{}
	for _, path := range paths {
		if ns, err := openNamespace(path); err == nil {
			namespaces[inode(path)] = true
			ns.close()
		}
	}
	for _, path := range []string{"/proc/self/ns/net", "/proc/1/ns/net"} {
		delete(namespaces, inode(path))
	}
	delete(namespaces, 0)
	return namespaces, nil
}

// inode returns 0 for a file that can't be looked at.
func inode(path string) uint64 {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return 0
	}
	return st.Ino
}

// unmountBelow unmounts all that is mounted inside the directory, the newest
// first. What a director, or a real server, has pinned on a bpffs of its own is
// removed before: another process may have the file system too, and would keep
// the data plane.
func unmountBelow(directory string) error {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	// The kernel writes the path without symbolic links.
	if resolved, err := filepath.EvalSymlinks(directory); err == nil {
		directory = resolved
	}
	var errs []error
	for _, point := range slices.Backward(mountPoints(string(text))) {
		if !strings.HasPrefix(point, directory+"/") {
			continue
		}
		if err := unpin(point); err != nil {
			errs = append(errs, err)
		}
		if err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			errs = append(errs, &os.PathError{Op: "unmount", Path: point, Err: err})
		}
	}
	return errors.Join(errs...)
}

// unpin removes what is pinned in directories on the mount, as all of fairlead's
// is, if it is a bpffs. The kernel's own files in it stay.
func unpin(mount string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(mount, &fs); err != nil || fs.Type != unix.BPF_FS_MAGIC {
		return nil // what can't be looked at is told by unmounting it
	}
	pinned, err := os.ReadDir(mount)
	errs := []error{err}
	for _, entry := range pinned {
		if !entry.IsDir() {
			continue
		}
		errs = append(errs, os.RemoveAll(filepath.Join(mount, entry.Name())))
	}
	return errors.Join(errs...)
}

// mountPoints reads the fifth field of each line of a mountinfo file, in which
// blanks are written in octal (proc_pid_mountinfo(5)).
func mountPoints(mountinfo string) []string {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var points []string
	for line := range strings.Lines(mountinfo) {
		if fields := strings.Fields(line); len(fields) > 4 {
			points = append(points, unescape.Replace(fields[4]))
		}
	}
	return points
}

// removeFiles removes a lab's directory. One that holds files but no state file,
// whole or begun, is not a lab's, and stays.
func removeFiles(directory string) error {
	if err := os.Remove(directory); err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	entries, err := os.ReadDir(directory)
	if err != nil {
		return err
	}
	isState := func(entry fs.DirEntry) bool { return entry.Name() == stateFile || entry.Name() == newStateFile }
	if !slices.ContainsFunc(entries, isState) {
		return fmt.Errorf("remove %s: it is no lab's directory: it holds files, and no %s", directory, stateFile)
	}
	for _, entry := range entries {
		if isState(entry) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(directory, entry.Name())); err != nil {
			return err
		}
	}
	return os.RemoveAll(directory)
}
