package dataplane

import (
	"reflect"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
)

func directorTypes(t *testing.T) *btf.Spec {
	t.Helper()
	spec, err := withVariables(loadDirector())
	if err != nil {
		t.Fatal(err)
	}
	return spec.Types
}

// enumValues are the names of an enum's values, which must count up from 0.
func enumValues(t *testing.T, name string) []string {
	t.Helper()
	var enum *btf.Enum
	if err := directorTypes(t).TypeByName(name, &enum); err != nil {
		t.Fatal(err)
	}
	var names []string
	for i, v := range enum.Values {
		if v.Value != uint64(i) {
			t.Errorf("%s is %d, want %d", v.Name, v.Value, i)
		}
		names = append(names, v.Name)
	}
	return names
}

// The generated Go types lie in memory as the program's BTF says.
func TestLayout(t *testing.T) {
	for name, value := range map[string]any{
		"address": directorAddress{}, "connection": directorConnection{}, "connection_group": directorConnectionGroup{},
		"service_key": directorServiceKey{}, "service": directorService{}, "policy": directorPolicy{}, "edition": directorEdition{},
		"list_slot": directorListSlot{}, "table_line": directorTableLine{},
		"cache_key": directorCacheKey{}, "cache_entry": directorCacheEntry{}, "next_hop": directorNextHop{}, "real_server": directorRealServer{},
		"counters": directorCounters{}, "interface": directorInterface{}, "settings": directorSettings{},
		"sweep_range": directorSweepRange{}, "bond_group": directorBondGroup{}, "mark_rule": directorMarkRule{}, "clock_reading": directorClockReading{},
	} {
		t.Run(name, func(t *testing.T) {
			var want *btf.Struct
			if err := directorTypes(t).TypeByName(name, &want); err != nil {
				t.Fatal(err)
			}
			compareLayout(t, want, reflect.TypeOf(value))
		})
	}
}

// So do those of the tracing program, which Go reads as the director's.
func TestTraceLayout(t *testing.T) {
	spec, err := withVariables(loadTrace())
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]any{
		"trace_event": traceTraceEvent{}, "trace_candidate": traceTraceCandidate{}, "trace_account": traceTraceAccount{},
		"trace_filter": traceTraceFilter{}, "trace_filter_table": traceTraceFilterTable{},
		"connection": directorConnection{}, "edition": directorEdition{}, "real_server": directorRealServer{}, "service_key": directorServiceKey{},
	} {
		t.Run(name, func(t *testing.T) {
			var want *btf.Struct
			if err := spec.Types.TypeByName(name, &want); err != nil {
				t.Fatal(err)
			}
			compareLayout(t, want, reflect.TypeOf(value))
		})
	}
}

func compareLayout(t *testing.T, want *btf.Struct, got reflect.Type) {
	t.Helper()
	if got.Size() != uintptr(want.Size) {
		t.Errorf("%d bytes, want %d", got.Size(), want.Size)
	}
	at := map[string]reflect.StructField{}
	for i := range got.NumField() {
		f := got.Field(i)
		at[strings.ToLower(f.Name)] = f
	}
	end := uint32(0)
	for _, m := range want.Members {
		if m.Offset.Bytes() != end {
			t.Errorf("hidden padding before %s", m.Name)
		}
		size, err := btf.Sizeof(m.Type)
		if err != nil {
			t.Fatal(err)
		}
		end = m.Offset.Bytes() + uint32(size)
		f, ok := at[strings.ReplaceAll(m.Name, "_", "")]
		if !ok {
			t.Errorf("field %s is missing", m.Name)
			continue
		}
		if f.Offset != uintptr(m.Offset.Bytes()) || f.Type.Size() != uintptr(size) {
			t.Errorf("field %s: %d bytes at %d, want %d at %d", m.Name, f.Type.Size(), f.Offset, size, m.Offset.Bytes())
		}
	}
	if end != want.Size {
		t.Errorf("hidden padding behind the last field")
	}
}
