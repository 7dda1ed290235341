package journey

import (
	"bytes"
	"io"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket/pcapgo"
)

func TestWritePcapng(t *testing.T) {
	n := lvsDR(t, false)
	hosts := []string{"client", "director", "rs1", "rs2"}
	shuffled := slices.Clone(n.frames)
	slices.Reverse(shuffled)
	var file bytes.Buffer
	if err := WritePcapng(&file, hosts, shuffled); err != nil {
		t.Fatal(err)
	}
	got := readPcapng(t, &file)
	if diff := cmp.Diff(n.frames, got); diff != "" {
		t.Errorf("read back (-written +read):\n%s", diff)
	}
}

func readPcapng(t *testing.T, r io.Reader) []Frame {
	t.Helper()
	ng, err := pcapgo.NewNgReader(r, pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		t.Fatal(err)
	}
	var frames []Frame
	for {
		data, info, options, err := ng.ReadPacketDataWithOptions()
		if err == io.EOF {
			return frames
		}
		if err != nil {
			t.Fatal(err)
		}
		device, err := ng.Interface(info.InterfaceIndex)
		if err != nil {
			t.Fatal(err)
		}
		direction := In
		if options.Flags.Direction == pcapgo.NgEpbFlagDirectionOutbound {
			direction = Out
		}
		frames = append(frames, Frame{Host: device.Name, Direction: direction, Time: info.Timestamp.UTC(), Data: data, Length: info.Length})
	}
}

func TestWritePcapngRefuses(t *testing.T) {
	n := lvsDR(t, false)
	if err := WritePcapng(io.Discard, nil, n.frames); err == nil {
		t.Error("wrote a file without hosts")
	}
	if err := WritePcapng(io.Discard, []string{"client"}, n.frames); err == nil {
		t.Error("wrote a frame of an unknown host")
	}
}
