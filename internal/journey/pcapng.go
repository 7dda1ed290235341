package journey

import (
	"fmt"
	"io"
	"slices"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// WritePcapng writes frames by time as a pcapng file with one interface for each
// host, named after it, in the order of hosts. Each frame says whether it came
// in or went out. A frame of a host that is not in hosts is an error.
func WritePcapng(w io.Writer, hosts []string, frames []Frame) error {
	file, err := newPcapng(w, hosts, "the wire of ")
	if err != nil {
		return err
	}
	for _, frame := range inOrder(frames) {
		if !slices.Contains(hosts, frame.Host) {
			return fmt.Errorf("write pcapng: frame of an unknown host %q", frame.Host)
		}
		if err := file.write(frame, nil); err != nil {
			return err
		}
	}
	return file.flush()
}

// A Recorder writes a pcapng file frame by frame, each with a comment.
type Recorder struct{ file *pcapng }

// NewRecorder begins a pcapng file with these interfaces, one at least.
func NewRecorder(w io.Writer, interfaces []string) (*Recorder, error) {
	file, err := newPcapng(w, interfaces, "")
	if err != nil {
		return nil, err
	}
	return &Recorder{file}, file.flush()
}

// Record writes a frame at once. Its Host is the name of an interface, which is
// added to the file if it is a new one.
func (r *Recorder) Record(frame Frame, comment string) error {
	if err := r.file.write(frame, []string{comment}); err != nil {
		return err
	}
	return r.file.flush()
}

// A pcapng is a file that is being written.
type pcapng struct {
	writer      *pcapgo.NgWriter
	interfaces  []string
	description string // of an interface: this, and its name
}

func newPcapng(w io.Writer, interfaces []string, description string) (*pcapng, error) {
	if len(interfaces) == 0 {
		return nil, fmt.Errorf("write pcapng: no interfaces")
	}
	file := &pcapng{interfaces: interfaces[:1:1], description: description}
	section := pcapgo.NgWriterOptions{SectionInfo: pcapgo.NgSectionInfo{Application: "fairlead"}}
	var err error
	if file.writer, err = pcapgo.NewNgWriterInterface(w, file.describe(interfaces[0]), section); err != nil {
		return nil, fmt.Errorf("write pcapng: %w", err)
	}
	for _, name := range interfaces[1:] {
		if err := file.add(name); err != nil {
			return nil, err
		}
	}
	return file, nil
}

func (f *pcapng) add(name string) error {
	if _, err := f.writer.AddInterface(f.describe(name)); err != nil {
		return fmt.Errorf("write pcapng interface %s: %w", name, err)
	}
	f.interfaces = append(f.interfaces, name)
	return nil
}

func (f *pcapng) describe(name string) pcapgo.NgInterface {
	return pcapgo.NgInterface{
		Name:                name,
		Description:         f.description + name,
		LinkType:            layers.LinkTypeEthernet,
		TimestampResolution: 9,
	}
}

func (f *pcapng) write(frame Frame, comments []string) error {
	index := slices.Index(f.interfaces, frame.Host)
	if index < 0 {
		if err := f.add(frame.Host); err != nil {
			return err
		}
		index = len(f.interfaces) - 1
	}
	info := gopacket.CaptureInfo{
		Timestamp:      frame.Time,
		CaptureLength:  len(frame.Data),
		Length:         frame.Length,
		InterfaceIndex: index,
	}
	direction := pcapgo.NgEpbFlagDirectionInbound
	if frame.Direction == Out {
		direction = pcapgo.NgEpbFlagDirectionOutbound
	}
	options := pcapgo.NgPacketOptions{Comments: comments, Flags: &pcapgo.NgEpbFlags{Direction: direction}}
	if err := f.writer.WritePacketWithOptions(info, frame.Data, options); err != nil {
		return fmt.Errorf("write pcapng frame of %s: %w", frame.Host, err)
	}
	return nil
}

func (f *pcapng) flush() error {
	if err := f.writer.Flush(); err != nil {
		return fmt.Errorf("write pcapng: %w", err)
	}
	return nil
}
