package oracle

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// compareFrame sends a recorded frame and compares what goes out, byte for byte;
// for one that waits it is an error if that is the same.
func (d *director) compareFrame(f *frame, waits bool) error {
	action, out, err := d.run(f.In, f.On)
	if err != nil {
		return fmt.Errorf("frame %s: %w", f.What, err)
	}
	difference := f.differs(action, out)
	switch {
	case waits && difference == nil:
		return fmt.Errorf("frame %s: the same as recorded; strike it off waitingFrames", f.What)
	case waits || difference == nil:
		return nil
	}
	return fmt.Errorf("frame %s: %w", f.What, difference)
}

// differs returns how what the program did with a frame differs from what IPVS
// did, or nil.
func (f *frame) differs(action uint32, out []byte) error {
	switch action {
	case xdpDrop:
		if len(f.Out) != 0 {
			return fmt.Errorf("dropped, recorded %s", f.Out[0])
		}
		return nil
	case xdpPass:
		return f.differsFromHost(out)
	case xdpRedirect:
		return f.differsFrom(out)
	}
	return fmt.Errorf("XDP action %d", action)
}

func (f *frame) differsFrom(out []byte) error {
	if len(f.Out) != 1 {
		return fmt.Errorf("sent %x, recorded %d frames: %s", out, len(f.Out), f.Out)
	}
	want := f.Out[0]
	if want.maskedID {
		out = bytes.Clone(out)
		maskID(out)
	}
	if !bytes.Equal(out, want.frame) {
		return fmt.Errorf("sent\n%x, recorded\n%x", out, want.frame)
	}
	return nil
}

// differsFromHost looks whether what was recorded is what the host's own stack
// does with a frame that was passed to it.
func (f *frame) differsFromHost(passed []byte) error {
	if !bytes.Equal(passed, f.In) {
		return fmt.Errorf("passed to the host as\n%x, came as\n%x", passed, f.In)
	}
	in := decode(f.In)
	if in.fragment || (in.tcp == nil && in.udp == nil) {
		return errors.New("passed to the host")
	}
	if len(f.Out) == 0 && in.tcp != nil && in.tcp.RST {
		return nil // that needs no answer
	}
	if len(f.Out) != 1 || !f.isHosts(in, f.Out[0]) {
		return fmt.Errorf("passed to the host, recorded what is none of a host's: %s", f.Out)
	}
	return nil
}

// isHosts reports whether the host's stack sent a frame because of another: as an
// answer for a port where nobody listens, or as a router.
func (f *frame) isHosts(in decoded, recorded output) bool {
	out := decode(recorded.frame)
	if recorded.on != f.On {
		return out.from == in.from && out.to == in.to && out.ttl == in.ttl-1
	}
	isAnswer := out.from == in.to && out.to == in.from && out.destination == in.source
	return isAnswer && (in.tcp != nil && out.tcp != nil && out.tcp.RST || in.udp != nil && out.unreachablePort)
}

// String returns where the frame went and its bytes.
func (o output) String() string {
	return fmt.Sprintf("%s to %s: %x", o.on, lvs.MAC(o.frame[:6]), o.frame)
}
