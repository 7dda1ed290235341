package director

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMissingCapabilities(t *testing.T) {
	const (
		bpf   = 1 << unix.CAP_BPF
		perf  = 1 << unix.CAP_PERFMON
		admin = 1 << unix.CAP_NET_ADMIN
		raw   = 1 << unix.CAP_NET_RAW
		sys   = 1 << unix.CAP_SYS_ADMIN
	)
	for _, test := range []struct {
		effective uint64
		want      []string
	}{
		{0, []string{"CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN", "CAP_NET_RAW"}},
		{bpf | perf | admin | raw, nil},
		{bpf | admin | raw, []string{"CAP_PERFMON"}},
		{sys | admin | raw, nil},
		{bpf | perf | admin, []string{"CAP_NET_RAW"}},
		{sys | bpf, []string{"CAP_NET_ADMIN", "CAP_NET_RAW"}},
	} {
		if got := missingCapabilities(test.effective); !slices.Equal(got, test.want) {
			t.Errorf("%#x: got %v, want %v", test.effective, got, test.want)
		}
	}
}
