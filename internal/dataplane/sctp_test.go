package dataplane

import (
	"slices"
	"testing"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// The first chunk decides on the state; only a cookie lets the next one be looked
// at, for an ABORT.
func TestSCTPChunks(t *testing.T) {
	p := servedPlane(t)
	for _, test := range []struct {
		name   string
		chunks [][]byte // of each packet, behind an INIT
		want   lvs.ConnectionState
	}{
		{"init", nil, lvs.StateSCTPInit1},
		{"cookie echo", [][]byte{{chunkCookieEcho}}, lvs.StateSCTPEstablished},
		{"cookie echo with data", [][]byte{{chunkCookieEcho, chunkData}}, lvs.StateSCTPEstablished},
		{"cookie echo with abort", [][]byte{{chunkCookieEcho, chunkAbort}}, lvs.StateSCTPClosed},
		{"cookie ack with abort", [][]byte{{chunkCookieAck, chunkAbort}}, lvs.StateSCTPClosed},
		{"cookie echo, abort in third place", [][]byte{{chunkCookieEcho, chunkData, chunkAbort}}, lvs.StateSCTPEstablished},
		{"data with abort", [][]byte{{chunkCookieEcho}, {chunkData, chunkAbort}}, lvs.StateSCTPEstablished},
		{"abort", [][]byte{{chunkCookieEcho}, {chunkAbort}}, lvs.StateSCTPClosed},
		{"shutdown", [][]byte{{chunkCookieEcho}, {chunkShutdown}}, lvs.StateSCTPShutdownReceived},
		{"shut down", [][]byte{{chunkCookieEcho}, {chunkShutdown}, {chunkShutdownComplete}}, lvs.StateSCTPClosed},
		{"unknown chunk is data", [][]byte{{chunkCookieEcho}, {0xc1}}, lvs.StateSCTPEstablished},
		{"init ack", [][]byte{{chunkInitAck}}, lvs.StateSCTPCookieEchoed},
	} {
		for _, addr := range [][2]string{{client4, vip4}, {client6, vip6}} {
			t.Run(test.name+" to "+addr[1], func(t *testing.T) {
				for _, chunks := range append([][]byte{{chunkInit}}, test.chunks...) {
					wantVerdict(t, p, sctpFrame(addr[0], addr[1], chunks...), "forward", xdpTX)
				}
				conns := slices.Collect(p.Connections())
				if len(conns) != 1 || conns[0].State != test.want || conns[0].Protocol != lvs.SCTP {
					t.Errorf("connections %+v, want one in state %s", conns, test.want)
				}
				checkTable(t, p)
				advance(p, time.Hour)
				mustSweep(t, p)
			})
		}
	}
}

// The length of a cookie is looked at no further than the packet goes.
func TestSCTPCookieOfAnyLength(t *testing.T) {
	p := servedPlane(t)
	frame := sctpFrame(client4, vip4, chunkCookieEcho, chunkAbort)
	const lengthAt = 14 + 20 + 12 + 2
	for _, length := range []int{0, 1, 3, 4, 5, 8, 9, 10, 11, 12, 13, 16, 17, 20, 21, 1000, 0x3ffc, 0x3ffd, 0x4000, 0xfffc, 0xffff} {
		frame[lengthAt], frame[lengthAt+1] = byte(length>>8), byte(length)
		wantVerdict(t, p, sctpFrame(client4, vip4, chunkInit), "forward", xdpTX)
		wantVerdict(t, p, frame, "forward", xdpTX)
		want := lvs.StateSCTPEstablished
		if length > 8 && length <= 12 {
			want = lvs.StateSCTPClosed
		}
		conns := slices.Collect(p.Connections())
		if len(conns) != 1 || conns[0].State != want {
			t.Fatalf("cookie of %d bytes: connections %+v, want one in state %s", length, conns, want)
		}
		advance(p, time.Hour)
	}
}
