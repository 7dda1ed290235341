package journey

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

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

// A recorder's file can be read after each frame.
func TestRecorder(t *testing.T) {
	var file bytes.Buffer
	r, err := NewRecorder(&file, []string{"eth0", "eth1"})
	if err != nil {
		t.Fatal(err)
	}
	if got := readPcapng(t, bytes.NewReader(file.Bytes())); len(got) != 0 {
		t.Errorf("%d frames in a file without any", len(got))
	}
	at := time.Unix(1_700_000_000, 123_456_789).UTC()
	frames := []Frame{
		{Host: "eth1", Direction: In, Time: at, Data: []byte{1, 2, 3}, Length: 1500},
		{Host: "eth2", Direction: Out, Time: at, Data: []byte{4, 5, 6, 7}, Length: 4}, // an interface that is new
	}
	for i, frame := range frames {
		if err := r.Record(frame, fmt.Sprintf("packet %d", i)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(frames[:i+1], readPcapng(t, bytes.NewReader(file.Bytes()))); diff != "" {
			t.Errorf("after frame %d (-written +read):\n%s", i, diff)
		}
	}
	ng, err := pcapgo.NewNgReader(&file, pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range frames {
		_, _, options, err := ng.ReadPacketDataWithOptions()
		if want := fmt.Sprintf("packet %d", i); err != nil || !slices.Equal(options.Comments, []string{want}) {
			t.Errorf("comments %q, %v; want %q", options.Comments, err, want)
		}
	}
	if _, err := NewRecorder(io.Discard, nil); err == nil {
		t.Error("began a file without interfaces")
	}
}
