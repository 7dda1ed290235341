package dataplane

import (
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// mostVerified is how many instructions the verifier may look at for one
// program: the kernel gives up at a million.
const mostVerified = 700_000

func TestVerifierIsFarFromItsLimit(t *testing.T) {
	testhost.NeedRoot(t)
	director, err := loadDirector()
	if err != nil {
		t.Fatal(err)
	}
	verifiedWithin(t, director, directorProgDirector, directorProgSweep, directorProgReadClock)
	trace, err := loadTrace()
	if err != nil {
		t.Fatal(err)
	}
	verifiedWithin(t, trace, traceProgTraceDirector)
}

// verifiedWithin loads programs, and compares what the verifier looked at with
// the limit.
func verifiedWithin(t *testing.T, spec *ebpf.CollectionSpec, names ...string) {
	t.Helper()
	for name := range spec.Programs {
		if !slices.Contains(names, name) {
			delete(spec.Programs, name)
		}
	}
	spec.Maps[directorMapConnections].MaxEntries = 16
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	defer coll.Close()
	for name, prog := range coll.Programs {
		info, err := prog.Info()
		if err != nil {
			t.Fatal(err)
		}
		verified, ok := info.VerifiedInstructions()
		if !ok {
			t.Fatalf("the kernel does not tell what it verified of %s", name)
		}
		t.Logf("%-14s %7d instructions verified, %5d in the program", name, verified, len(spec.Programs[name].Instructions))
		if verified > mostVerified {
			t.Errorf("%s: %d instructions verified, want %d at the most", name, verified, mostVerified)
		}
	}
}

// few are the capabilities that the data plane needs. Without CAP_PERFMON, the
// verifier allows no packet pointer that has a number added to it, as options of
// IPv4, extension headers and lengths ask for (it fears speculation).
var few = []uintptr{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_NET_ADMIN, unix.CAP_NET_RAW}

// fewCapabilities is the environment variable that tells the test's child which
// bpffs to use.
const fewCapabilities = "FAIRLEAD_TEST_FEW_CAPABILITIES"

// A child process that has those capabilities only loads, pins, runs and takes
// over the data plane.
func TestFewCapabilitiesSuffice(t *testing.T) {
	if dir := os.Getenv(fewCapabilities); dir != "" {
		withFewCapabilities(t, dir)
		return
	}
	dir := testhost.MountBPF(t)
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), fewCapabilities+"="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("with few capabilities: %v\n%s", err, out)
	}
}

func withFewCapabilities(t *testing.T, dir string) {
	// Capabilities are a thread's; this one is never given back.
	runtime.LockOSThread()
	keepCapabilities(t, few)
	p, err := Open(Config{PinDir: dir, Connections: 1})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	*testInterface(p) = directorInterface{Ifindex: testIfindex, TxIfindex: testIfindex, Mac: directorMAC}
	servedBy(t, p, "wlc", 2)
	send(t, p, 0, "S", "forward")
	mustSweep(t, p)
	brief := lvs.TraceFilter{For: time.Millisecond}
	if err := p.Trace(t.Context(), brief, func(lvs.TraceReport) error { return nil }); err != nil {
		t.Fatalf("%+v", err)
	}
	mustClose(t, p)
	if p, err = Open(Config{PinDir: dir}); err != nil {
		t.Fatalf("take over: %+v", err)
	}
	send(t, p, 0, "A", "forward")
	mustClose(t, p)
	if err := Unload(dir); err != nil {
		t.Error(err)
	}
}

// keepCapabilities drops all capabilities of this thread but those.
func keepCapabilities(t *testing.T, keep []uintptr) {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	for _, c := range keep {
		data[c/32].Effective |= 1 << (c % 32)
		data[c/32].Permitted |= 1 << (c % 32)
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		t.Fatalf("drop capabilities: %v", err)
	}
}
