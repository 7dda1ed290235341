package lvs

import (
	"errors"
	"slices"
	"testing"
)

func TestSysctlsAreWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Sysctls() {
		if s.Meaning == "" || s.Default < s.Min || s.Default > s.Max {
			t.Errorf("%+v: no meaning, or a default out of range", s)
		}
		if seen[s.Name] {
			t.Errorf("%s is there twice", s.Name)
		}
		seen[s.Name] = true
	}
	for _, s := range AbsentSysctls() {
		if s.Why == "" || seen[s.Name] {
			t.Errorf("%+v: no reason, or not absent", s)
		}
		seen[s.Name] = true
	}
	// What Linux 6.1 has under net.ipv4.vs.
	for _, name := range []string{
		"am_droprate", "amemthresh", "backup_only", "cache_bypass", "conn_reuse_mode", "conntrack", "debug_level",
		"drop_entry", "drop_packet", "expire_nodest_conn", "expire_quiescent_template", "ignore_tunneled",
		"lblc_expiration", "lblcr_expiration", "nat_icmp_send", "pmtu_disc", "run_estimation", "schedule_icmp",
		"secure_tcp", "sloppy_sctp", "sloppy_tcp", "snat_reroute", "sync_persist_mode", "sync_ports", "sync_qlen_max",
		"sync_refresh_period", "sync_retries", "sync_sock_size", "sync_threshold", "sync_version",
	} {
		if !seen[name] {
			t.Errorf("the kernel's %s is neither there nor absent for a reason", name)
		}
	}
}

func TestParseSysctlChange(t *testing.T) {
	for _, test := range []struct {
		name, value string
		want        SysctlChange
		err         error
	}{
		{"sloppy_tcp", "1", SysctlChange{Name: "sloppy_tcp", Value: 1}, nil},
		{"sloppy_tcp", "-2147483648", SysctlChange{Name: "sloppy_tcp", Value: -2147483648}, nil},
		{"sloppy_tcp", "2147483648", SysctlChange{}, ErrRange},
		{"sloppy_tcp", "", SysctlChange{}, ErrInvalid},
		{"sloppy_tcp", "yes", SysctlChange{}, ErrInvalid},
		{"sloppy_tcp", "default", SysctlChange{Name: "sloppy_tcp", Reset: true}, nil},
		{"drop_packet", "3", SysctlChange{Name: "drop_packet", Value: 3}, nil},
		{"drop_packet", "4", SysctlChange{}, ErrRange},
		{"drop_packet", "-1", SysctlChange{}, ErrRange},
		{"timeout_udp", "0", SysctlChange{}, ErrRange},
		{"timeout_udp", "2678400", SysctlChange{Name: "timeout_udp", Value: 2678400}, nil},
		{"timeout_udp", "2678401", SysctlChange{}, ErrRange},
		{"nat_icmp_send", "1", SysctlChange{}, ErrUnsupported},
		{"nat_icmp_send", "default", SysctlChange{}, ErrUnsupported},
		{"nosuch", "1", SysctlChange{}, ErrInvalid},
	} {
		got, err := ParseSysctlChange(test.name, test.value)
		if !errors.Is(err, test.err) || err == nil && got != test.want {
			t.Errorf("%s=%s: %+v, %v; want %+v, %v", test.name, test.value, got, err, test.want, test.err)
		}
	}
}

func TestParseConnectionState(t *testing.T) {
	protocols := map[ConnectionState][]Protocol{StateNone: {TCP, UDP, SCTP}}
	for s := StateEstablished; s < StateUDP; s++ {
		protocols[s] = []Protocol{TCP}
	}
	protocols[StateUDP] = []Protocol{UDP}
	for s := StateSCTPInit1; s <= StateSCTPClosed; s++ {
		protocols[s] = []Protocol{SCTP}
	}
	for state, of := range protocols {
		for _, protocol := range of {
			if got, err := ParseConnectionState(protocol, state.String()); err != nil || got != state {
				t.Errorf("%s %s: %d, %v; want %d", protocol, state, got, err, state)
			}
		}
		if state != StateNone && state != StateEstablished && state != StateSCTPEstablished && !slices.Contains(of, SCTP) {
			if got, err := ParseConnectionState(SCTP, state.String()); !errors.Is(err, ErrInvalid) {
				t.Errorf("SCTP %s: %d, %v; want %v", state, got, err, ErrInvalid)
			}
		}
	}
}
