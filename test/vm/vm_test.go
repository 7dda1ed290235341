package vm

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Where scripts/test-deps unpacks Debian's package of the kernel.
const kernelDirectory = "../../bin/oldest-kernel"

// What the guest runs: every program loaded, every way in and out, and every method of
// forwarding, once. The verifier takes a quarter of a minute for the director's program
// where a processor is emulated, so tests that load it anew are few.
const tests = "^(TestAttachModes|TestTakeOverReplacesTheProgram|TestFewCapabilitiesSuffice|" +
	"TestForwardsTCP|TestForwardChangesNothingElse|TestTunnelMTU|TestTunnelEnd|TestMasquerades|TestFullNAT|" +
	"TestTTL|TestMTU|TestRetag|TestSCTPChunks|TestServicePolicy|TestDropEntry|TestStatesOfAService|TestAnswers|TestServiceLookup|" +
	"TestConnectionReuse|TestUnusableServers|TestExplainSaysWhy|TestTraceTellsEveryWayOut|TestEarlyFragmentsAreHandedOver)$"

// The guest's processor is emulated, so that this runs anywhere.
const bootAndTestTime = 15 * time.Minute

func TestOldestKernel(t *testing.T) {
	kernel := only(t, "boot/vmlinuz-*")
	veth := only(t, "lib/modules/*/kernel/drivers/net/veth.ko")
	busybox := command(t, "busybox", "busybox-static")
	qemu := command(t, "qemu-system-x86_64", "qemu-system-x86")
	cpio := command(t, "cpio", "cpio")

	ctx, cancel := context.WithTimeout(t.Context(), bootAndTestTime)
	defer cancel()
	root := t.TempDir()
	for _, directory := range []string{"bin", "proc", "sys", "dev", "tmp", "run", "modules"} {
		if err := os.Mkdir(filepath.Join(root, directory), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.CommandContext(ctx, "go", "test", "-c", "-o", filepath.Join(root, "test"), "../../internal/dataplane")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	output(t, build)
	copyFile(t, "init", filepath.Join(root, "init"))
	copyFile(t, busybox, filepath.Join(root, "bin/busybox"))
	copyFile(t, veth, filepath.Join(root, "modules/veth.ko"))
	arguments := "-test.v -test.timeout=" + bootAndTestTime.String() + " -test.run=" + tests
	if err := os.WriteFile(filepath.Join(root, "arguments"), []byte(arguments), 0o644); err != nil {
		t.Fatal(err)
	}
	boot(t, ctx, qemu, kernel, pack(t, ctx, cpio, root))
}

// only returns the one file of the kernel's package that fits a pattern.
func only(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(kernelDirectory, pattern))
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 {
		missing(t, "one "+pattern+" under "+kernelDirectory, "make test-deps")
	}
	return found[0]
}

func command(t *testing.T, name, debianPackage string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		missing(t, name, "apt-get install "+debianPackage)
	}
	return path
}

// missing skips the test for what it lacks; in CI that is a failure.
func missing(t *testing.T, what, remedy string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("needs %s: %s", what, remedy)
	}
	t.Skipf("needs %s: %s", what, remedy)
}

func output(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, content, 0o755); err != nil {
		t.Fatal(err)
	}
}

// pack makes an initramfs of a directory.
func pack(t *testing.T, ctx context.Context, cpio, root string) string {
	t.Helper()
	var names strings.Builder
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		names.WriteString(name + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "initramfs")
	cmd := exec.CommandContext(ctx, cpio, "--create", "--quiet", "--format=newc", "--owner=+0:+0", "--file="+archive)
	cmd.Dir = root
	cmd.Stdin = strings.NewReader(names.String())
	output(t, cmd)
	return archive
}

var (
	failed = regexp.MustCompile(`^\s*--- FAIL`)
	passed = regexp.MustCompile(`^--- PASS`)
)

// boot runs the guest, and takes its word for how the tests ended.
func boot(t *testing.T, ctx context.Context, qemu, kernel, initramfs string) {
	t.Helper()
	cmd := exec.CommandContext(ctx, qemu, "-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "3072",
		"-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
		"-kernel", kernel, "-initrd", initramfs, "-append", "console=ttyS0 panic=-1 quiet")
	console, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	count, exit, log := 0, "", &strings.Builder{}
	lines := bufio.NewScanner(io.TeeReader(console, log))
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), "\r")
		switch {
		case passed.MatchString(line):
			t.Log(line)
			count++
		case failed.MatchString(line):
			t.Error(line)
		case strings.HasPrefix(line, "guest: exit "):
			exit = strings.TrimPrefix(line, "guest: exit ")
		case strings.HasPrefix(line, "guest: "):
			t.Log(line)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the virtual machine: %v (%v)", err, ctx.Err())
	}
	if exit != "0" || count == 0 || lines.Err() != nil {
		t.Fatalf("the guest's tests ended with %q, %d passed, reading: %v; its console:\n%s", exit, count, lines.Err(), log)
	}
	t.Logf("%d tests passed", count)
}
