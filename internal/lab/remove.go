package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// unloadTimeout bounds the removal of a director's data plane.
const unloadTimeout = 10 * time.Second

// remove takes down everything in a lab's directory and the directory. It goes
// on after a failure, and returns all of them.
func remove(ctx context.Context, directory string, s state) error {
	var errs []error
	for _, p := range s.Processes {
		errs = append(errs, p.terminate(ctx))
	}
	for _, p := range s.Processes {
		if p.isDirector() {
			errs = append(errs, unload(ctx, directory, s.Binary, p))
		}
	}
	errs = append(errs, killInhabitants(ctx, directory), unmountBelow(directory))
	if err := errors.Join(errs...); err != nil {
		// Something may still be mounted or running there: what the next run
		// needs to find it stays.
		return fmt.Errorf("take down lab %s: %w", filepath.Base(directory), err)
	}
	return removeFiles(directory)
}

// unload removes the pinned data plane. Where the namespace is gone, so is what
// was attached in it.
func unload(ctx context.Context, directory, binary string, director Process) error {
	ns, err := openNamespace(namespacePath(directory, director.Host))
	if err != nil {
		return nil
	}
	defer ns.close()
	ctx, cancel := context.WithTimeout(ctx, unloadTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "director", "unload", "--run-dir", runDirectory(directory, director.Host))
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := ns.do(cmd.Start); err != nil {
		return fmt.Errorf("unload the director: %w", err)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("unload the director: %w: %s", err, strings.TrimSpace(said.String()))
	}
	return nil
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
// first.
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
		if err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			errs = append(errs, &os.PathError{Op: "unmount", Path: point, Err: err})
		}
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

// removeFiles removes a lab's directory. One that holds files but no state file
// is not a lab's, and stays.
func removeFiles(directory string) error {
	if err := os.Remove(directory); err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, err := os.Stat(filepath.Join(directory, stateFile)); err != nil {
		return fmt.Errorf("remove %s: it is no lab's directory: %w", directory, err)
	}
	entries, err := os.ReadDir(directory)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Name() == stateFile {
			continue
		}
		if err := os.RemoveAll(filepath.Join(directory, entry.Name())); err != nil {
			return err
		}
	}
	return os.RemoveAll(directory)
}
