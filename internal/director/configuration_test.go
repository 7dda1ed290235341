package director

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/config"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

const webFile = `
sysctls: {timeout_established: 1h}
peers: [192.0.2.9]
marks:
  - {mark: 7, protocol: tcp, destination: 192.0.2.100, destination-ports: 6000-6100}
services:
  - address: tcp:192.0.2.100:80
    scheduler: sh
    flags: [sh-port]
    servers: [192.0.2.11, {address: 192.0.2.12, weight: 2}]
  - address: fwmark:7
    servers: [192.0.2.11]
`

// newConfigured returns a bench whose revisions lie in a directory.
func newConfigured(t *testing.T, dir string, tookOver bool) bench {
	t.Helper()
	b := newBench(t, newMemoryPlane())
	b.must(t, b.inheritConfiguration(dir, tookOver))
	return b
}

func (b bench) mustApply(t *testing.T, text string) api.Applied {
	t.Helper()
	applied, err := b.Apply(t.Context(), api.ApplyRequest{Name: "web.yaml", Text: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return applied
}

// drawn returns changes as they are printed.
func drawn(changes []api.Change) []string {
	lines := []string{}
	for _, c := range changes {
		lines = append(lines, strings.TrimSuffix(fmt.Sprintf("%s %s: %s", c.Sign, c.Text, c.Detail), ": "))
	}
	return lines
}

func wantDrawn(t *testing.T, what string, got []api.Change, want ...string) {
	t.Helper()
	if diff := cmp.Diff(append([]string{}, want...), drawn(got)); diff != "" {
		t.Errorf("%s, -want +got:\n%s", what, diff)
	}
}

func TestApply(t *testing.T) {
	b := newConfigured(t, t.TempDir(), false)
	planned, err := b.Apply(t.Context(), api.ApplyRequest{Name: "web.yaml", Text: []byte(webFile), DryRun: true})
	if err != nil || planned.Revision != 0 {
		t.Fatalf("dry run: %+v, %v", planned, err)
	}
	b.wantState(t, lvs.State{})
	applied := b.mustApply(t, webFile)
	wantDrawn(t, "changes", applied.Changes,
		"~ set timeout_established=3600",
		"+ add peer 192.0.2.9",
		"+ add service TCP 192.0.2.100:80 sh",
		"+ add real server 192.0.2.12:80 to TCP 192.0.2.100:80",
		"+ add real server 192.0.2.11:80 to TCP 192.0.2.100:80",
		"+ add service FWM 7 wlc",
		"+ add real server 192.0.2.11:0 to FWM 7",
		"~ set 1 mark rules, of 0: 1 new, 0 gone",
	)
	if diff := cmp.Diff(planned.Changes, applied.Changes); diff != "" || applied.Revision != 1 {
		t.Errorf("revision %d, -planned +changed:\n%s", applied.Revision, diff)
	}
	file, err := config.Parse("web.yaml", []byte(webFile))
	if err != nil {
		t.Fatal(err)
	}
	b.wantState(t, file.State)
	if again := b.mustApply(t, webFile); len(again.Changes) != 0 || again.Revision != 1 {
		t.Errorf("applied again: %+v", again)
	}
	one := b.mustApply(t, strings.Replace(webFile, "weight: 2", "weight: 3", 1))
	wantDrawn(t, "one change", one.Changes, "~ edit real server 192.0.2.12:80 of TCP 192.0.2.100:80: weight 2 -> 3")
	if empty := b.mustApply(t, ""); empty.Revision != 3 {
		t.Errorf("an empty file: %+v", empty)
	}
	b.wantState(t, lvs.State{})
}

func TestApplyKeepsWhatWasChangedByHand(t *testing.T) {
	b, ctx := newConfigured(t, t.TempDir(), false), t.Context()
	b.mustApply(t, webFile)
	drift, err := b.Drift(ctx)
	if err != nil {
		t.Fatal(err)
	}
	wantDrawn(t, "nothing was changed", drift)
	server, byHand := routed("192.0.2.12", 80), routed("192.0.2.19", 80)
	server.Weight = 0
	b.must(t, b.EditServer(ctx, vip, server), b.AddServer(ctx, vip, byHand), b.DeletePeer(ctx, netip.MustParseAddr("192.0.2.9")),
		b.AddService(ctx, wlc(vip6)))
	byHandDrift := []string{
		"~ edit real server 192.0.2.12:80 of TCP 192.0.2.100:80: weight 2 -> 0",
		"+ add real server 192.0.2.19:80 to TCP 192.0.2.100:80",
		"+ add service TCP [2001:db8::100]:80 wlc",
		"- delete peer 192.0.2.9",
	}
	drift, err = b.Drift(ctx)
	if err != nil {
		t.Fatal(err)
	}
	wantDrawn(t, "drift", drift, byHandDrift...)
	changed := strings.Replace(webFile, "scheduler: sh\n    flags: [sh-port]", "scheduler: rr", 1)
	applied := b.mustApply(t, changed)
	wantDrawn(t, "changes", applied.Changes, "~ edit service TCP 192.0.2.100:80: scheduler sh -> rr, flags sh-port -> none")
	wantDrawn(t, "drift of it", applied.Drift, byHandDrift...)
	pruned, err := b.Apply(ctx, api.ApplyRequest{Name: "web.yaml", Text: []byte(changed), Prune: true})
	if err != nil {
		t.Fatal(err)
	}
	wantDrawn(t, "pruned", pruned.Changes,
		"+ add peer 192.0.2.9",
		"~ edit real server 192.0.2.12:80 of TCP 192.0.2.100:80: weight 0 -> 2",
		"- delete real server 192.0.2.19:80 of TCP 192.0.2.100:80",
		"- delete service TCP [2001:db8::100]:80",
	)
	wantDrawn(t, "drift when pruned", pruned.Drift)
}

func TestApplyRefuses(t *testing.T) {
	dir := t.TempDir()
	b := newConfigured(t, dir, false)
	b.mustApply(t, webFile)
	before, err := b.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, text string
		reason     error
		place      string
	}{
		{"an unknown key", "services:\n  - adress: tcp:192.0.2.100:80\n", lvs.ErrInvalid, `web.yaml:2:5: unknown key "adress": did you mean address?`},
		{"what only a director knows", "services:\n  - address: tcp:192.0.2.100:80\n    servers:\n      - {address: 192.0.2.11, port: 81}\n",
			lvs.ErrInvalid, "web.yaml:4:9: "},
		{"a service", "services:\n  - address: tcp:192.0.2.100:0\n", lvs.ErrInvalid, "web.yaml:2:14: "},
		{"a sorry server that is a real server", "services:\n  - address: tcp:192.0.2.100:80\n    sorry-server: 192.0.2.11\n    servers: [192.0.2.11]\n",
			lvs.ErrInvalid, "web.yaml:2:14: "},
	} {
		for _, dryRun := range []bool{true, false} {
			_, err := b.Apply(t.Context(), api.ApplyRequest{Name: "web.yaml", Text: []byte(test.text), DryRun: dryRun})
			if !errors.Is(err, test.reason) || !strings.HasPrefix(err.Error(), test.place) {
				t.Errorf("%s: got %v, want %s...", test.name, err, test.place)
			}
		}
	}
	b.wantState(t, before)
	if got := names(t, dir); got != "00000001.json" {
		t.Errorf("left behind: %s", got)
	}
}

// A change that fails in the middle is undone, and is no revision.
func TestApplyThatFails(t *testing.T) {
	failed := 0
	for n := 1; ; n++ {
		dir := t.TempDir()
		b := newConfigured(t, dir, false)
		b.mustApply(t, "services: [{address: tcp:192.0.2.100:80}]")
		before, err := b.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		b.plane.failAt = n
		_, err = b.Apply(t.Context(), api.ApplyRequest{Name: "web.yaml", Text: []byte(webFile)})
		if b.plane.failAt > 0 {
			break // it made fewer changes
		}
		if err == nil {
			continue // a next hop was not written: that is a state of its own
		}
		failed++
		if !errors.Is(err, errPlane) {
			t.Errorf("change %d: %v", n, err)
		}
		b.wantState(t, before)
		if got := names(t, dir); got != "00000001.json" {
			t.Errorf("change %d left behind: %s", n, got)
		}
		if drift, err := b.Drift(t.Context()); err != nil || len(drift) != 0 {
			t.Errorf("change %d: drift %v, %v", n, drift, err)
		}
	}
	if failed < 5 {
		t.Errorf("%d changes failed", failed)
	}
}

func TestRollback(t *testing.T) {
	dir := t.TempDir()
	b, ctx := newConfigured(t, dir, false), t.Context()
	if _, err := b.Rollback(ctx, 0, false); !errors.Is(err, lvs.ErrInvalid) {
		t.Errorf("of nothing: %v", err)
	}
	weight := func(n int) string {
		return fmt.Sprintf("services: [{address: tcp:192.0.2.100:80, servers: [{address: 192.0.2.11, weight: %d}]}]", n)
	}
	for n := range 4 {
		b.mustApply(t, weight(n+1))
	}
	step := func(to int, wantWeight uint32, wantRevision, wantOf int) {
		t.Helper()
		if _, err := b.Rollback(ctx, to, true); err != nil {
			t.Fatal(err)
		}
		applied, err := b.Rollback(ctx, to, false)
		if err != nil {
			t.Fatal(err)
		}
		if got := b.plane.service(vip).Servers[0].Weight; got != wantWeight || applied.Revision != wantRevision {
			t.Errorf("rolled back to %d: weight %d, revision %d, want %d, %d", to, got, applied.Revision, wantWeight, wantRevision)
		}
		all, err := b.Revisions(ctx)
		if last := all[len(all)-1]; err != nil || last.Number != wantRevision || last.Of != wantOf {
			t.Errorf("rolled back to %d: %+v, %v", to, last, err)
		}
	}
	step(0, 3, 5, 3)
	step(0, 2, 6, 2)
	step(4, 4, 7, 4)
	step(5, 3, 8, 3)
	for _, to := range []int{0, 9} {
		if to == 0 {
			step(1, 1, 9, 1)
		}
		if _, err := b.Rollback(ctx, to, false); to == 0 && !errors.Is(err, lvs.ErrInvalid) {
			t.Errorf("before the first: %v", err)
		}
	}
	if _, err := b.Rollback(ctx, 99, false); !errors.Is(err, lvs.ErrInvalid) {
		t.Errorf("to what there is not: %v", err)
	}
}

func TestRevisionsAreForgotten(t *testing.T) {
	dir := t.TempDir()
	b := newConfigured(t, dir, false)
	for n := range keptRevisions + 3 {
		b.mustApply(t, fmt.Sprintf("services: [{address: tcp:192.0.2.100:%d}]", n+1))
	}
	all, err := b.Revisions(t.Context())
	if err != nil || len(all) != keptRevisions || all[0].Number != 4 {
		t.Errorf("%d are kept, from %d on, %v", len(all), all[0].Number, err)
	}
	if err := removeRevisions(dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("removed: %v", err)
	}
}

// What a configuration says of health is carried out, and goes with it.
func TestApplyHealth(t *testing.T) {
	b, ctx := newConfigured(t, t.TempDir(), false).followed(t), t.Context()
	light := newLamp(t, "0")
	text := func(weight int) string {
		return fmt.Sprintf(`services:
  - address: tcp:192.0.2.100:80
    checks: [{type: file, interval: 100ms, fall: 1, file: {path: %s}}]
    alpha: true
    servers: [{address: 192.0.2.11, weight: %d}, {address: 192.0.2.12, checks: []}]
`, light, weight)
	}
	first, second := routed("192.0.2.11", 80), routed("192.0.2.12", 80)
	b.mustApply(t, text(1))
	b.eventually(t, second)
	light.set(t, "1")
	b.eventually(t, first, second)
	light.set(t, "0")
	b.eventually(t, second)
	b.mustApply(t, text(2))
	if drift, err := b.Drift(ctx); err != nil || len(drift) != 0 {
		t.Errorf("what a check withholds is drift: %v, %v", drift, err)
	}
	b.eventually(t, second)
	state, err := b.State(ctx)
	b.must(t, err)
	if _, err := b.Restore(ctx, lvs.State{}, false); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Restore(ctx, state, false); err != nil {
		t.Fatal(err)
	}
	b.eventually(t, second)
	light.set(t, "1")
	b.eventually(t, changed(first, func(r *lvs.RealServer) { r.Weight = 2 }), second)
	light.set(t, "0")
	b.eventually(t, second)
	b.mustApply(t, strings.ReplaceAll(strings.ReplaceAll(text(2), "    checks:", "    # checks:"), "alpha:", "# alpha:"))
	b.eventually(t, changed(first, func(r *lvs.RealServer) { r.Weight = 2 }), second)
}

// What a director was told by hand before it ended is drift for the one that takes
// over; where nothing is taken over, the configuration is whole again.
func TestConfigurationIsTakenOver(t *testing.T) {
	dir := t.TempDir()
	first := newConfigured(t, dir, false)
	first.mustApply(t, webFile)
	first.must(t, first.AddService(t.Context(), wlc(vip6)))

	second := newBench(t, first.plane)
	second.must(t, second.inheritConfiguration(dir, true))
	drift, err := second.Drift(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantDrawn(t, "taken over", drift, "+ add service TCP [2001:db8::100]:80 wlc")

	third := newConfigured(t, dir, false)
	if drift, err := third.Drift(t.Context()); err != nil || len(drift) != 0 {
		t.Errorf("begun anew: %v, %v", drift, err)
	}
	third.mustApply(t, webFile)
	file, _ := config.Parse("web.yaml", []byte(webFile))
	third.wantState(t, file.State)
}

func TestExportIsAConfiguration(t *testing.T) {
	b := newConfigured(t, t.TempDir(), false)
	b.mustApply(t, webFile)
	b.must(t, b.AddService(t.Context(), wlc(vip6)), b.AddServer(t.Context(), vip6, routed("2001:db8::11", 80)))
	text, err := b.Export(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if changes := b.mustApply(t, text).Changes; len(changes) != 0 {
		t.Errorf("what is exported changes %v:\n%s", drawn(changes), text)
	}
}

func TestConfigFileIsFollowed(t *testing.T) {
	b := newConfigured(t, t.TempDir(), false)
	path := filepath.Join(t.TempDir(), "fairlead.yaml")
	write := func(text string) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o600), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.startWith(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	write("services: [{}]")
	if err := b.startWith(path); !errors.Is(err, lvs.ErrInvalid) {
		t.Errorf("a bad file: %v", err)
	}
	write(webFile)
	b.must(t, b.startWith(path))
	ctx, cancel := context.WithCancel(t.Context())
	reload, ended := make(chan os.Signal), make(chan struct{})
	go func() { b.followFile(ctx, reload); close(ended) }()
	revision := func() int {
		all, err := b.Revisions(ctx)
		if err != nil {
			t.Error(err)
		}
		return len(all)
	}
	write("services: [{address: tcp:192.0.2.100:80}]")
	until(t, "the file is applied", func() bool { return revision() == 2 })
	write("services: [{adress: tcp:192.0.2.100:80}]")
	reload <- os.Interrupt
	reload <- os.Interrupt // the first is done
	if got := revision(); got != 2 {
		t.Errorf("a bad file: %d revisions", got)
	}
	write(webFile)
	reload <- os.Interrupt
	reload <- os.Interrupt
	if got := revision(); got != 3 {
		t.Errorf("reloaded: %d revisions", got)
	}
	cancel()
	<-ended
}

// A file that is being written is not read before it has been the same for a while.
func TestConfigFileSettles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fairlead.yaml")
	f := &configFile{path: path}
	steps := []struct {
		write string
		want  bool
	}{{"a", false}, {"ab", false}, {"abc", false}, {"", true}, {"", false}, {"abcd", false}, {"", true}}
	for i, step := range steps {
		if step.write != "" {
			if err := os.WriteFile(path, []byte(step.write), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got := f.changed()
		if got != step.want {
			t.Errorf("step %d: changed %v", i, got)
		}
		if got {
			if _, err := f.load(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if f.changed() {
		t.Error("a file that is gone is a change")
	}
}

// At a takeover, what was rolled back to after the file was read stays.
func TestRollbackOutlivesTheDirector(t *testing.T) {
	dir, path := t.TempDir(), filepath.Join(t.TempDir(), "fairlead.yaml")
	first := newConfigured(t, dir, false)
	for _, weight := range []int{1, 2} {
		text := fmt.Sprintf("services: [{address: tcp:192.0.2.100:80, servers: [{address: 192.0.2.11, weight: %d}]}]", weight)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		first.must(t, first.startWith(path))
	}
	if _, err := first.Rollback(t.Context(), 0, false); err != nil {
		t.Fatal(err)
	}
	second := newBench(t, first.plane)
	second.must(t, second.inheritConfiguration(dir, true), second.startWith(path))
	if got := second.plane.service(vip).Servers[0].Weight; got != 1 {
		t.Errorf("taken over: weight %d", got)
	}
	if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	third := newBench(t, first.plane)
	third.must(t, third.inheritConfiguration(dir, true), third.startWith(path))
	if got := third.plane.service(vip).Servers[0].Weight; got != 1 {
		t.Errorf("taken over with a bad file: weight %d", got)
	}
}

func TestRevisionsOfAnotherVersion(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "00000001.json"), []byte(`{"version": 9}`), 0o600); err != nil {
		t.Fatal(err)
	}
	b := newBench(t, newMemoryPlane())
	if err := b.inheritConfiguration(dir, false); err == nil || !strings.Contains(err.Error(), "00000001.json") {
		t.Errorf("got %v", err)
	}
	later := now()
	if later.After(time.Now()) {
		t.Errorf("now is %v", later)
	}
}
