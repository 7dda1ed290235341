package ipvsadm

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

func TestReadRules(t *testing.T) {
	state, refused := ReadRules(t.Context(), `-A -t 192.0.2.100:80 -s wlc -p 300 -M 255.255.255.0
-a -t 192.0.2.100:80 -r 198.51.100.12:80 -g -w 2 -x 10 -y 5
-a -t 192.0.2.100:80 -r 198.51.100.11:80 -i -w 1 --tun-type gue --tun-port 6080

# by hand
-A -f 7 -s sh -b sh-port
-a -f 7 -r 198.51.100.11:0 -m
--set 3600 0 60
-a -t 192.0.2.101:80 -r 198.51.100.11:80
-A -t 192.0.2.100:80
-L
nonsense
`)
	server := func(last byte, port uint16) lvs.RealServerKey {
		return lvs.RealServerKey{Address: netip.AddrFrom4([4]byte{198, 51, 100, last}), Port: port}
	}
	want := lvs.State{
		Sysctls: []lvs.SysctlSetting{{Name: "timeout_established", Value: 3600}, {Name: "timeout_udp", Value: 60}},
		Services: []lvs.ServiceState{
			{
				Service: lvs.Service{
					ServiceKey: lvs.ServiceKey{Protocol: lvs.TCP, Address: netip.MustParseAddr("192.0.2.100"), Port: 80},
					Scheduler:  "wlc", PersistenceTimeout: 5 * time.Minute, PersistenceMask: 0xffffff00,
				},
				Servers: []lvs.RealServer{
					{RealServerKey: server(12, 80), Method: lvs.DirectRouting, Weight: 2, UpperThreshold: 10, LowerThreshold: 5},
					{RealServerKey: server(11, 80), Method: lvs.Tunnelling, Weight: 1, Tunnel: lvs.Tunnel{Type: lvs.GUE, Port: 6080}},
				},
			},
			{
				Service: lvs.Service{ServiceKey: lvs.MarkKey(7, false), Scheduler: "sh", SchedulerFlags: lvs.SHPort, PersistenceMask: 0xffffffff},
				Servers: []lvs.RealServer{{RealServerKey: server(11, 0), Method: lvs.Masquerading, Weight: 1}},
			},
		},
	}
	if diff := cmp.Diff(want, state, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	var lines []string
	for _, r := range refused {
		if r.Reason == "" {
			t.Errorf("%+v", r)
		}
		lines = append(lines, fmt.Sprintf("%d %s", r.Line, r.Text))
	}
	if diff := cmp.Diff([]string{"9 -a -t 192.0.2.101:80 -r 198.51.100.11:80", "10 -A -t 192.0.2.100:80", "11 -L", "12 nonsense"}, lines); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
