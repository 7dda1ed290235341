package director

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMissingCapabilities(t *testing.T) {
	const (
		bpf   = 1 << unix.CAP_BPF
		admin = 1 << unix.CAP_NET_ADMIN
		raw   = 1 << unix.CAP_NET_RAW
		sys   = 1 << unix.CAP_SYS_ADMIN
	)
	for _, test := range []struct {
		effective uint64
		want      []string
	}{
		{0, []string{"CAP_BPF", "CAP_NET_ADMIN", "CAP_NET_RAW"}},
		{bpf | admin | raw, nil},
		{sys | admin | raw, nil},
		{bpf | admin, []string{"CAP_NET_RAW"}},
		{sys | bpf, []string{"CAP_NET_ADMIN", "CAP_NET_RAW"}},
	} {
		if got := missingCapabilities(test.effective); !slices.Equal(got, test.want) {
			t.Errorf("%#x: got %v, want %v", test.effective, got, test.want)
		}
	}
}
