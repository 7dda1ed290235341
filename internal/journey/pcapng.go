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
	if len(hosts) == 0 {
		return fmt.Errorf("write pcapng: no hosts")
	}
	section := pcapgo.NgWriterOptions{SectionInfo: pcapgo.NgSectionInfo{Application: "fairlead"}}
	ng, err := pcapgo.NewNgWriterInterface(w, pcapngInterface(hosts[0]), section)
	if err != nil {
		return fmt.Errorf("write pcapng: %w", err)
	}
	for _, host := range hosts[1:] {
		if _, err := ng.AddInterface(pcapngInterface(host)); err != nil {
			return fmt.Errorf("write pcapng interface %s: %w", host, err)
		}
	}
	for _, frame := range inOrder(frames) {
		index := slices.Index(hosts, frame.Host)
		if index < 0 {
			return fmt.Errorf("write pcapng: frame of an unknown host %q", frame.Host)
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
		options := pcapgo.NgPacketOptions{Flags: &pcapgo.NgEpbFlags{Direction: direction}}
		if err := ng.WritePacketWithOptions(info, frame.Data, options); err != nil {
			return fmt.Errorf("write pcapng frame of %s: %w", frame.Host, err)
		}
	}
	if err := ng.Flush(); err != nil {
		return fmt.Errorf("write pcapng: %w", err)
	}
	return nil
}

func pcapngInterface(host string) pcapgo.NgInterface {
	return pcapgo.NgInterface{
		Name:                host,
		Description:         "the wire of " + host,
		LinkType:            layers.LinkTypeEthernet,
		TimestampResolution: 9,
	}
}
