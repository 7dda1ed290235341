package dataplane

import (
	"bytes"
	"testing"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// The order in which the service of a new connection is looked for, and what is
// left to the host or refused as IPVS does.
func TestServiceLookup(t *testing.T) {
	const vip = "192.0.2.10"
	p := newTestPlane(t)
	p.settings().FirstUnprivilegedPort = defaultUnprivilegedPort
	tcp := func(port string) lvs.Service { return tcpService(vip+port, lvs.RoundRobin) }
	udp := func(port string) lvs.Service { return udpService(vip+port, lvs.RoundRobin) }
	client, fromData := "203.0.113.5:40000", "203.0.113.5:20"
	for _, test := range []struct {
		name     string
		services []lvs.Service
		frame    []byte
		verdict  string
	}{
		{"exact", []lvs.Service{tcp(":80")}, tcpFrame(client, vip+":80", "S"), "forward"},
		{"other port", []lvs.Service{tcp(":80")}, tcpFrame(client, vip+":81", "S"), "pass-no-service"},
		{"other address", []lvs.Service{tcp(":80")}, tcpFrame(client, "192.0.2.11:80", "S"), "pass-no-service"},
		{"other protocol", []lvs.Service{tcp(":80")}, udpFrame(client, vip+":80"), "pass-no-service"},
		{"udp", []lvs.Service{udp(":53")}, udpFrame(client, vip+":53"), "forward"},
		{"the exact one before any port", []lvs.Service{tcp(":0"), tcp(":80")}, tcpFrame(client, vip+":80", "S"), "forward"},
		{"any port", []lvs.Service{tcp(":0")}, tcpFrame(client, vip+":80", "S"), "answer-no-server"},
		{"any port, udp", []lvs.Service{udp(":0")}, udpFrame(client, vip+":80"), "answer-no-server"},
		{"any port of another protocol", []lvs.Service{udp(":0")}, tcpFrame(client, vip+":80", "S"), "pass-no-service"},
		{"port 0 itself", []lvs.Service{tcp(":0")}, tcpFrame(client, vip+":0", "S"), "forward"},
		{"ftp control", []lvs.Service{tcp(":21")}, tcpFrame(client, vip+":21", "S"), "forward"},
		{"ftp data", []lvs.Service{tcp(":21")}, tcpFrame(client, vip+":20", "S"), "pass-ftp"},
		{"passive ftp", []lvs.Service{tcp(":21")}, tcpFrame(client, vip+":40000", "S"), "pass-ftp"},
		{"first unprivileged port", []lvs.Service{tcp(":21")}, tcpFrame(client, vip+":1024", "S"), "pass-ftp"},
		{"last privileged port", []lvs.Service{tcp(":21")}, tcpFrame(client, vip+":1023", "S"), "pass-no-service"},
		{"ftp of another address", []lvs.Service{tcp(":21")}, tcpFrame(client, "192.0.2.11:20", "S"), "pass-no-service"},
		{"udp on ftp's ports", []lvs.Service{tcp(":21"), udp(":53")}, udpFrame(client, vip+":4000"), "pass-no-service"},
		{"udp port 21 is no ftp", []lvs.Service{udp(":21")}, tcpFrame(client, vip+":20", "S"), "pass-no-service"},
		{"the exact one before ftp", []lvs.Service{tcp(":21"), tcp(":4000")}, tcpFrame(client, vip+":4000", "S"), "forward"},
		{"ftp before any port", []lvs.Service{tcp(":0"), tcp(":21")}, tcpFrame(client, vip+":4000", "S"), "pass-ftp"},
		{"any port where ftp is not", []lvs.Service{tcp(":0"), tcp(":21")}, tcpFrame(client, vip+":443", "S"), "answer-no-server"},
		{"from the data port", []lvs.Service{tcp(":80")}, tcpFrame(fromData, vip+":80", "S"), "pass-ftp"},
		{"from the data port, udp", []lvs.Service{udp(":53")}, udpFrame(fromData, vip+":53"), "pass-ftp"},
		{"from the data port, no service", []lvs.Service{tcp(":80")}, tcpFrame(fromData, vip+":81", "S"), "pass-no-service"},
		{"no connection", []lvs.Service{tcp(":80")}, tcpFrame(client, vip+":80", "A"), "pass-no-connection"},
		{"no connection, fin", []lvs.Service{tcp(":80")}, tcpFrame(client, vip+":80", "FA"), "pass-no-connection"},
		{"no connection, rst", []lvs.Service{tcp(":80")}, tcpFrame(client, vip+":80", "R"), "pass-no-connection"},
		{"no connection, rst and syn", []lvs.Service{tcp(":80")}, tcpFrame(client, vip+":80", "SR"), "pass-no-connection"},
		{"no connection, no flags", []lvs.Service{tcp(":80")}, tcpFrame(client, vip+":80", ""), "pass-no-connection"},
		{"syn and ack", []lvs.Service{tcp(":80")}, tcpFrame(client, vip+":80", "SA"), "forward"},
		{"no connection, any port", []lvs.Service{tcp(":0")}, tcpFrame(client, vip+":80", "A"), "pass-no-connection"},
	} {
		t.Run(test.name, func(t *testing.T) {
			defer reset(t, p)
			for _, svc := range test.services {
				mustAddService(t, p, svc)
				mustAddServer(t, p, svc, server4, 1)
			}
			action := uint32(xdpPass)
			if test.verdict == "forward" || test.verdict == "answer-no-server" {
				action = xdpTX
			}
			if out := wantVerdict(t, p, test.frame, test.verdict, action); action == xdpPass && !bytes.Equal(out, test.frame) {
				t.Errorf("reached the host as %x, came in as %x", out, test.frame)
			}
			for _, svc := range test.services {
				if err := p.DeleteService(svc.ServiceKey); err != nil {
					t.Fatal(err)
				}
			}
			wantVerdict(t, p, tcpFrame("203.0.113.77:1", vip+":80", "S"), "pass-no-services", xdpPass)
		})
	}
}
