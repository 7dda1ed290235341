package lab

import (
	"bytes"
	"io"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/fairlead-lb/fairlead/internal/journey"
)

// recorded returns the frames of two requests in a healthy lab.
func recorded(t *testing.T) []journey.Frame {
	t.Helper()
	file, err := os.Open("../journey/testdata/recorded-ipv4.pcapng")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	reader, err := pcapgo.NewNgReader(file, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	var frames []journey.Frame
	for {
		data, info, options, err := reader.ReadPacketDataWithOptions()
		if err == io.EOF {
			return frames
		}
		if err != nil {
			t.Fatal(err)
		}
		device, err := reader.Interface(info.InterfaceIndex)
		if err != nil {
			t.Fatal(err)
		}
		frame := journey.Frame{Host: device.Name, Direction: journey.In, Time: info.Timestamp, Data: data, Length: info.Length}
		if options.Flags.Direction == pcapgo.NgEpbFlagDirectionOutbound {
			frame.Direction = journey.Out
		}
		frames = append(frames, frame)
	}
}

// find returns the index of the first frame that f wants.
func find(t *testing.T, frames []journey.Frame, f func(journey.Frame, journey.Packet) bool) int {
	t.Helper()
	i := slices.IndexFunc(frames, func(frame journey.Frame) bool { return f(frame, journey.Decode(frame.Data)) })
	if i < 0 {
		t.Fatal("no such frame")
	}
	return i
}

func forwardedBy(frame journey.Frame, p journey.Packet) bool {
	return frame.Host == Director && frame.Direction == journey.Out && p.Kind == journey.TCP
}

func replyAtClient(frame journey.Frame, p journey.Packet) bool {
	return frame.Host == Client && frame.Direction == journey.In && p.Kind == journey.TCP
}

func arpReply(frame journey.Frame, p journey.Packet) bool {
	return frame.Host == Director && frame.Direction == journey.Out && p.Kind == journey.ARPReply
}

// What a director may not do to frames, or a real server say, is found in them.
func TestTally(t *testing.T) {
	changed := func(frames []journey.Frame, i, at int, to byte) []journey.Frame {
		frames[i].Data = bytes.Clone(frames[i].Data)
		frames[i].Data[at] = to
		return frames
	}
	const destinationMAC, sourceMAC, ttl, window = 5, 11, 22, 48 // offsets in the frame
	for _, test := range []struct {
		name  string
		spoil func([]journey.Frame) []journey.Frame
		want  []string
	}{
		{"healthy", func(f []journey.Frame) []journey.Frame { return f }, nil},
		{"another TTL", func(f []journey.Frame) []journey.Frame {
			return changed(f, find(t, f, forwardedBy), ttl, 7)
		}, nil},
		{"another window", func(f []journey.Frame) []journey.Frame {
			return changed(f, find(t, f, forwardedBy), window, 0xee)
		}, []string{"only-macs-changed"}},
		{"to nobody", func(f []journey.Frame) []journey.Frame {
			return changed(f, find(t, f, forwardedBy), destinationMAC, 0x99)
		}, []string{"only-macs-changed"}},
		{"in another's name", func(f []journey.Frame) []journey.Frame {
			return changed(f, find(t, f, forwardedBy), sourceMAC, 0x01)
		}, []string{"only-macs-changed"}},
		{"not forwarded", func(f []journey.Frame) []journey.Frame {
			i := find(t, f, forwardedBy)
			return slices.Delete(f, i, i+1)
		}, []string{"only-macs-changed"}},
		{"a reply through the director", func(f []journey.Frame) []journey.Frame {
			reply := f[find(t, f, replyAtClient)]
			reply.Host = Director
			return append(f, reply)
		}, []string{"replies-bypass-director"}},
		{"a reply of the director", func(f []journey.Frame) []journey.Frame {
			return changed(f, find(t, f, replyAtClient), sourceMAC, 0x10)
		}, []string{"replies-bypass-director"}},
		{"a server answers ARP", func(f []journey.Frame) []journey.Frame {
			reply := f[find(t, f, arpReply)]
			reply.Host = "rs1"
			return changed(append(f, reply), len(f), sourceMAC, 0x11)
		}, []string{"vip-is-the-directors"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := good()
			e.tally = newTally(netip.AddrPortFrom(IPv4.VIP(), HTTPPort), portsOf(hostsOf(Config{Servers: 2}), Flat))
			for _, frame := range test.spoil(recorded(t)) {
				e.tally.observe(frame)
			}
			got := Demonstration{Report: Report{Checks: e.checks()}}.Failed()
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("failed checks (-want +got):\n%s\n%+v", diff, e.checks())
			}
		})
	}
}
