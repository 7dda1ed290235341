package dataplane

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A frame leaves with the tag of its next hop, whatever tags it came with. A tag
// that is right already keeps its priority.
func TestRetag(t *testing.T) {
	tests := []struct {
		name string
		in   []vlanTag
		vlan uint16
		out  []vlanTag
	}{
		{"untagged to untagged", nil, 0, nil},
		{"untagged to tagged", nil, 7, []vlanTag{{etherVLAN, 7}}},
		{"tagged to untagged", []vlanTag{{etherVLAN, 7}}, 0, nil},
		{"priority tag to untagged", []vlanTag{{etherVLAN, 0x6000}}, 0, nil},
		{"priority tag to tagged", []vlanTag{{etherVLAN, 0x6000}}, 7, []vlanTag{{etherVLAN, 7}}},
		{"same tag", []vlanTag{{etherVLAN, 0x6007}}, 7, []vlanTag{{etherVLAN, 0x6007}}},
		{"other tag", []vlanTag{{etherVLAN, 0x6008}}, 7, []vlanTag{{etherVLAN, 7}}},
		{"highest tag", []vlanTag{{etherVLAN, 8}}, 4094, []vlanTag{{etherVLAN, 4094}}},
		{"provider tag to untagged", []vlanTag{{etherService, 7}}, 0, nil},
		{"provider tag of the same number", []vlanTag{{etherService, 7}}, 7, []vlanTag{{etherVLAN, 7}}},
		{"two tags to untagged", []vlanTag{{etherService, 9}, {etherVLAN, 7}}, 0, nil},
		{"two tags to inner", []vlanTag{{etherService, 9}, {etherVLAN, 7}}, 7, []vlanTag{{etherVLAN, 7}}},
		{"two tags to outer", []vlanTag{{etherVLAN, 9}, {etherVLAN, 7}}, 9, []vlanTag{{etherVLAN, 9}}},
	}
	for _, family := range []struct {
		ethertype           uint16
		client, vip, server string
	}{{etherIPv4, client4, vip4, server4}, {etherIPv6, client6, vip6, server6}} {
		p := servedPlane(t)
		packet := tcpFrame(family.client, family.vip, "S", 1, 2, 3)[14:]
		for _, test := range tests {
			t.Run(fmt.Sprintf("%x/%s", family.ethertype, test.name), func(t *testing.T) {
				setHop(t, p, family.server, lvs.NextHop{VLAN: test.vlan})
				out := wantVerdict(t, p, ethernet(family.ethertype, packet, test.in...), "forward", xdpTX)
				want := ethernet(family.ethertype, packet, test.out...)
				mac := serverMAC(addrOf(family.server))
				copy(want, mac[:])
				copy(want[6:], directorMAC[:])
				age(want[14+4*len(test.out):])
				if diff := cmp.Diff(want, out); diff != "" {
					t.Errorf("frame (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// Answers go back with the tags that the packet came with.
func TestAnswersKeepTags(t *testing.T) {
	p := servedPlane(t)
	for _, tags := range [][]vlanTag{{{etherVLAN, 0x6007}}, {{etherService, 9}, {etherVLAN, 7}}} {
		for _, family := range []struct {
			ethertype   uint16
			client, vip string
			ttl, icmp   int
		}{{etherIPv4, client4, vip4, 8, 9}, {etherIPv6, client6, vip6, 7, 6}} {
			packet := changed(tcpFrame(family.client, family.vip, "S")[14:], family.ttl, 1)
			out := wantVerdict(t, p, ethernet(family.ethertype, packet, tags...), "answer-ttl", xdpTX)
			want := ethernet(family.ethertype, nil, tags...)
			copy(want, clientMAC[:])
			copy(want[6:], directorMAC[:])
			if diff := cmp.Diff(want, out[:len(want)]); diff != "" {
				t.Errorf("Ethernet header (-want +got):\n%s", diff)
			}
			if got := out[len(want)+family.icmp]; got != protoICMP && got != protoICMPv6 {
				t.Errorf("answer has protocol %d", got)
			}
		}
	}
}
