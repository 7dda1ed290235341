package dataplane

import (
	"fmt"
	"testing"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// signsOf returns what was seen against the only real server of a service.
func signsOf(t testing.TB, p *Plane, key lvs.ServiceKey) string {
	t.Helper()
	server := statusOf(t, p, key).Servers[0]
	return fmt.Sprintf("%d retries, %d resets", server.Retries, server.Resets)
}

// First packets that come again unanswered speak against a real server, and nothing that
// comes after an answer does.
func TestRetriesAreCounted(t *testing.T) {
	for _, family := range []struct{ name, vip, rs, client string }{
		{"ipv4", "192.0.2.10:80", "198.51.100.11:80", "203.0.113.5:1024"},
		{"ipv6", "[2001:db8:2::10]:80", "[2001:db8:1::b]:80", "[2001:db8:3::5]:1024"},
	} {
		t.Run(family.name, func(t *testing.T) {
			p := newTestPlane(t)
			web, signalling, names := tcpService(family.vip, lvs.RoundRobin), sctpService(family.vip, lvs.RoundRobin), udpService(family.vip, lvs.RoundRobin)
			for _, svc := range []lvs.Service{web, signalling, names} {
				mustAddService(t, p, svc)
				mustAddServer(t, p, svc, family.rs, 1)
			}
			tcp := func(flags string) { wantVerdict(t, p, tcpFrame(family.client, family.vip, flags), "forward", xdpTX) }
			tcp("S")
			tcp("S")
			tcp("S")
			tcp("A")
			tcp("S") // of a connection that there is
			tcp("A")
			tcp("R") // the client's
			if got := signsOf(t, p, web.ServiceKey); got != "2 retries, 0 resets" {
				t.Errorf("TCP: %s", got)
			}
			for range 4 {
				wantVerdict(t, p, sctpFrame(family.client, family.vip, chunkInit), "forward", xdpTX)
			}
			if got := signsOf(t, p, signalling.ServiceKey); got != "3 retries, 0 resets" {
				t.Errorf("SCTP: %s", got)
			}
			for range 3 {
				wantVerdict(t, p, udpFrame(family.client, family.vip, 1), "forward", xdpTX)
			}
			if got := signsOf(t, p, names.ServiceKey); got != "0 retries, 0 resets" {
				t.Errorf("UDP: %s", got)
			}
		})
	}
}

// A masqueraded real server that refuses or breaks a connection off is seen; one that
// says no more to a connection that is over is no worse for it.
func TestResetsAreCounted(t *testing.T) {
	for family, m := range masqueradings {
		t.Run(family, func(t *testing.T) {
			p := masqueradedPlane(t)
			web, signalling := tcpService(m.vip, lvs.RoundRobin).ServiceKey, sctpService(m.vip, lvs.RoundRobin).ServiceKey
			client := func(flags string) { wantVerdict(t, p, tcpFrame(m.client, m.vip, flags), "forward", xdpTX) }
			server := func(flags string) {
				wantVerdict(t, p, fromServer(tcpFrame(m.server, m.client, flags), m.server), "forward-reply", xdpTX)
			}
			for _, step := range []struct {
				name string
				do   func()
				want string
			}{
				{"refused", func() { client("S"); server("RA") }, "0 retries, 1 resets"},
				{"answered", func() { client("S"); server("SA"); client("A"); server("A") }, "0 retries, 1 resets"},
				{"broken off", func() { server("R"); server("R") }, "0 retries, 2 resets"},
				{"unanswered", func() { client("S"); client("S") }, "1 retries, 2 resets"},
				{"over", func() { server("SA"); client("A"); client("FA"); server("R") }, "1 retries, 2 resets"},
			} {
				step.do()
				if got := signsOf(t, p, web); got != step.want {
					t.Errorf("%s: %s, want %s", step.name, got, step.want)
				}
			}
			wantVerdict(t, p, sctpFrame(m.client, m.vip, chunkInit), "forward", xdpTX)
			wantVerdict(t, p, fromServer(sctpFrame(m.server, m.client, chunkAbort), m.server), "forward-reply", xdpTX)
			if got := signsOf(t, p, signalling); got != "0 retries, 1 resets" {
				t.Errorf("SCTP: %s", got)
			}
		})
	}
}
