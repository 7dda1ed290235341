package scale

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

const (
	applyServices = 1000
	applyServers  = 10 // of each
	// applyTime and changeTime are what is asked for, of a machine that has nothing else to
	// do; load stretches them.
	applyTime  = 2 * time.Second
	changeTime = 100 * time.Millisecond
	// changes are tried until one is in time: the machine may have been busy.
	changeTries = 10
)

// largeConfiguration is one of many services; weight is that of the last server.
func largeConfiguration(weight int) []byte {
	var text strings.Builder
	text.WriteString("services:\n")
	for i := range applyServices {
		fmt.Fprintf(&text, "  - address: tcp:198.18.%d.%d:80\n    scheduler: wlc\n    servers:\n", i/250, i%250+1)
		for j := range applyServers {
			w := 1
			if i == applyServices-1 && j == applyServers-1 {
				w = weight
			}
			fmt.Fprintf(&text, "      - {address: 192.0.2.%d, weight: %d}\n", 11+(i*applyServers+j)%240, w)
		}
	}
	return []byte(text.String())
}

// mustNeighbours lets all real servers have a next hop.
func mustNeighbours(t *testing.T) {
	t.Helper()
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	for last := range 240 {
		addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(11 + last)})
		err := netlink.NeighSet(&netlink.Neigh{
			LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: addr.AsSlice(),
			HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 1, byte(11 + last)},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// stretch returns how many want each CPU, 1 at least.
func stretch(t *testing.T) time.Duration {
	t.Helper()
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		t.Fatal(err)
	}
	var load float64
	if _, err := fmt.Sscan(string(data), &load); err != nil {
		t.Fatal(err)
	}
	return time.Duration(max(1, load/float64(runtime.NumCPU())))
}

func TestApplyOfManyServices(t *testing.T) {
	testhost.NeedRoot(t)
	program, dir := mustBuild(t)
	enterNamespace(t)
	mustNeighbours(t)
	client := startDirector(t, program, dir)
	apply := func(weight, changes int) time.Duration {
		t.Helper()
		begun := time.Now()
		applied, err := client.Apply(t.Context(), api.ApplyRequest{Name: "large.yaml", Text: largeConfiguration(weight)})
		if err != nil || len(applied.Changes) != changes {
			t.Fatalf("%d changes, %v", len(applied.Changes), err)
		}
		return time.Since(begun)
	}
	took := apply(1, applyServices*(1+applyServers))
	t.Logf("%d services of %d real servers from nothing: %s", applyServices, applyServers, took)
	if limit := applyTime * stretch(t); took > limit {
		t.Errorf("want at most %s", limit)
	}
	best := time.Hour
	for try := range changeTries {
		took := apply(2+try, 1)
		t.Logf("one change: %s", took)
		if best = min(best, took); best <= changeTime {
			break
		}
	}
	if limit := changeTime * stretch(t); best > limit {
		t.Errorf("one change took %s at best, want at most %s", best, limit)
	}
}
