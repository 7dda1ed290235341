package lab

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/journey"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// The switch's table says on which port each host is, and the watch in which order
// it learnt it.
func TestSwitchLearns(t *testing.T) {
	config := testConfig(t)
	config.Topology = Routed
	l := buildNetwork(t, config)
	watch, err := l.watchSwitch()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Get(t.Context(), netip.AddrPortFrom(l.Servers()[0].Address(IPv4), HTTPPort)); err != nil {
		t.Fatal(err)
	}
	learnt, err := watch.stop()
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]int{}
	for i, lesson := range learnt {
		if name := namesOf(l.ports)[lesson.MAC]; name != lesson.Host {
			t.Errorf("learnt %s on the wire of %s", name, lesson.Host)
		}
		at[lesson.Port] = i + 1
	}
	if at[Client] == 0 || at["router-out"] < at[Client] || at["rs1"] < at[Router] || at[Router] < at[Client] {
		t.Errorf("learnt %+v", learnt)
	}
	table, err := l.switchTable()
	if err != nil {
		t.Fatal(err)
	}
	if table[Client] != Client || table[Router] != Router || table["rs1"] != "rs1" {
		t.Errorf("the switch's table: %v", table)
	}
}

// An entry that moves is learnt once more; one that is told again, or forgotten, is
// not.
func TestSwitchWatchHears(t *testing.T) {
	mac := lvs.MAC{2, 0, 0, 0, 0, 1}
	watch := switchWatch{ports: map[int]journey.Learning{1: {Port: "a", Host: "a"}, 2: {Port: "b", Host: "b"}}}
	var learnt []journey.Learning
	for _, heard := range []struct {
		kind  uint16
		port  uint32
		state uint16
		want  string
	}{
		{unix.RTM_NEWNEIGH, 1, unix.NUD_PERMANENT, ""}, // the port's own
		{unix.RTM_NEWNEIGH, 3, unix.NUD_REACHABLE, ""}, // no port of a host
		{unix.RTM_NEWNEIGH, 1, unix.NUD_REACHABLE, "a"},
		{unix.RTM_NEWNEIGH, 1, unix.NUD_REACHABLE, "a"},
		{unix.RTM_NEWNEIGH, 2, unix.NUD_REACHABLE, "ab"},
		{unix.RTM_NEWNEIGH, 1, unix.NUD_REACHABLE, "aba"},
		{unix.RTM_DELNEIGH, 1, unix.NUD_REACHABLE, "b"},
	} {
		learnt = watch.hear(learnt, bridgeMessage(heard.kind, heard.port, heard.state, mac))
		got := ""
		for _, l := range learnt {
			got += l.Port
		}
		if got != heard.want {
			t.Fatalf("after %+v: learnt %q", heard, got)
		}
	}
}

// bridgeMessage is what the kernel says of an entry of a bridge (rtnetlink(7)).
func bridgeMessage(kind uint16, port uint32, state uint16, mac lvs.MAC) syscall.NetlinkMessage {
	data := []byte{unix.AF_BRIDGE, 0, 0, 0}
	data = binary.NativeEndian.AppendUint32(data, port)
	data = binary.NativeEndian.AppendUint16(data, state)
	data = append(data, 0, 0)
	data = binary.NativeEndian.AppendUint16(data, unix.SizeofRtAttr+uint16(len(mac)))
	data = binary.NativeEndian.AppendUint16(data, unix.NDA_LLADDR)
	data = append(append(data, mac[:]...), 0, 0)
	return syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: kind}, Data: data}
}
