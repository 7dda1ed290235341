package dataplane

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
)

// An OversizedPacket is an IPv4 packet that is larger than its way carries, and may be
// fragmented. The data plane has done all the rest with it.
type OversizedPacket struct {
	// Interface is the index of the interface that it leaves by.
	Interface int

	frame  []byte // as it would leave
	packet int    // where it begins; in a tunnel, behind the outer headers
	most   int    // as large as a packet may be there
	tag    uint16 // 802.1Q, that the frame still has to get; 0: none
}

// FollowOversized calls visit for each packet that is to be fragmented. It returns the
// error of ctx when that ends, or of visit. Only one can follow at a time.
func (p *Plane) FollowOversized(ctx context.Context, visit func(OversizedPacket) error) error {
	return follow(ctx, p.maps.OversizedPackets, func(record []byte) error {
		var head directorOversized
		frame, ok := copyHead(&head, record)
		if !ok || len(frame) < int(head.Length) || head.Length <= uint32(head.L3) {
			return fmt.Errorf("read an oversized packet: a record of %d bytes is cut short", len(record))
		}
		return visit(OversizedPacket{
			Interface: int(head.Ifindex),
			frame:     slices.Clone(frame[:head.Length]),
			packet:    int(head.L3),
			most:      int(head.Mtu),
			tag:       head.Tag,
		})
	})
}

// SendInFragments sends a packet on its way in fragments. It returns the error of the
// first one that the network does not take; the others are of no use then.
func (s *FragmentSender) SendInFragments(o OversizedPacket) error {
	fragments, err := o.Fragments()
	if err != nil {
		return err
	}
	for _, frame := range fragments {
		if err := s.send(frame, o.Interface); err != nil {
			return fmt.Errorf("send a fragment by interface %d: %w", o.Interface, err)
		}
	}
	return nil
}

const (
	ethernetLength = 14
	tagLength      = 4
	ipv4Length     = 20
	ipv6Length     = 40

	moreFragments  = 0x2000
	dontFragment   = 0x4000
	fragmentOffset = 0x1fff
)

// Fragments returns the frames of the packet's fragments, in their order. In a tunnel,
// each has outer headers of its own: a tunnel's end puts nothing together.
func (o OversizedPacket) Fragments() ([][]byte, error) {
	link := ethernetLength
	if len(o.frame) > link && binary.BigEndian.Uint16(o.frame[12:]) == etherTypeVLAN {
		link += tagLength
	}
	if o.packet < link {
		return nil, fmt.Errorf("fragment a packet at byte %d of its frame: the link's header has %d", o.packet, link)
	}
	pieces, err := cutIPv4(o.frame[o.packet:], o.most)
	if err != nil {
		return nil, err
	}
	outer := o.frame[link:o.packet]
	header := insertTag(o.frame[:link], o.tag)
	frames := make([][]byte, len(pieces))
	for i, piece := range pieces {
		frames[i] = append(slices.Clone(header), wrap(outer, piece)...)
	}
	return frames, nil
}

// insertTag gives the header of a frame a tag, unless that is 0.
func insertTag(header []byte, tag uint16) []byte {
	if tag == 0 {
		return header
	}
	tagged := binary.BigEndian.AppendUint16(slices.Clone(header[:12]), etherTypeVLAN)
	tagged = binary.BigEndian.AppendUint16(tagged, tag)
	return append(tagged, header[12:]...)
}

// cutIPv4 makes fragments of at most so many bytes of a packet, which may be a fragment
// itself (RFC 791, 3.2). What is behind the packet in its frame is no part of it.
func cutIPv4(packet []byte, most int) ([][]byte, error) {
	if len(packet) < ipv4Length {
		return nil, fmt.Errorf("fragment a packet of %d bytes: cut short", len(packet))
	}
	length, ihl := int(binary.BigEndian.Uint16(packet[2:])), int(packet[0]&0xf)*4
	if packet[0]>>4 != 4 || ihl < ipv4Length || length < ihl || length > len(packet) {
		return nil, fmt.Errorf("fragment a packet of %d bytes: its header contradicts itself", len(packet))
	}
	where := binary.BigEndian.Uint16(packet[6:])
	if where&dontFragment != 0 {
		return nil, fmt.Errorf("fragment a packet of %d bytes: it is not to be fragmented", length)
	}
	header, payload, offset := packet[:ihl], packet[ihl:length], int(where&fragmentOffset)*8
	var pieces [][]byte
	for at := 0; at < len(payload); {
		end := len(payload)
		if room := most - len(header); end-at > room {
			end = at + room&^7
		}
		if end <= at {
			return nil, fmt.Errorf("fragment a packet of %d bytes: %d bytes have no room for any of it", length, most)
		}
		flags := where & moreFragments
		if end < len(payload) {
			flags = moreFragments
		}
		piece := append(slices.Clone(header), payload[at:end]...)
		binary.BigEndian.PutUint16(piece[2:], uint16(len(piece)))
		binary.BigEndian.PutUint16(piece[6:], flags|uint16((offset+at)/8))
		setHeaderChecksum(piece[:len(header)])
		pieces = append(pieces, piece)
		if at == 0 && offset == 0 {
			header = header[:ipv4Length:ipv4Length]
			header = append(header, copiedOptions(packet[ipv4Length:ihl])...)
			header = slices.Concat([]byte{0x40 | byte(len(header)/4)}, header[1:])
		}
		at = end
	}
	return pieces, nil
}

// copiedOptions are those that belong in every fragment, filled up to whole words.
func copiedOptions(options []byte) []byte {
	const (
		end    = 0
		noOp   = 1
		copied = 0x80
	)
	var all []byte
	for len(options) > 0 && options[0] != end {
		length := 1
		if options[0] != noOp {
			if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
				break
			}
			length = int(options[1])
		}
		if options[0]&copied != 0 {
			all = append(all, options[:length]...)
		}
		options = options[length:]
	}
	for len(all)%4 != 0 {
		all = append(all, end)
	}
	return all
}

// wrap puts a packet into outer headers that were made for a larger one.
func wrap(outer, packet []byte) []byte {
	if len(outer) == 0 {
		return packet
	}
	wrapped := slices.Concat(outer, packet)
	header := ipv6Length
	protocol, pseudo := wrapped[6], wrapped[8:40]
	if wrapped[0]>>4 == 4 {
		header, protocol, pseudo = ipv4Length, wrapped[9], wrapped[12:20]
		binary.BigEndian.PutUint16(wrapped[2:], uint16(len(wrapped)))
		binary.BigEndian.PutUint16(wrapped[4:], uint16(rand.Uint32()))
		setHeaderChecksum(wrapped[:header])
	} else {
		binary.BigEndian.PutUint16(wrapped[4:], uint16(len(wrapped)-header))
	}
	upper := wrapped[header:]
	switch {
	case protocol == protocolUDP:
		setUDPLength(upper, pseudo)
	case protocol == protocolGRE && upper[0]&greChecksum != 0:
		binary.BigEndian.PutUint16(upper[4:], 0)
		binary.BigEndian.PutUint16(upper[4:], ^sum16(upper, 0))
	}
	return wrapped
}

const (
	etherTypeVLAN = 0x8100
	protocolUDP   = 17
	protocolGRE   = 47
	greChecksum   = 0x80
)

// setUDPLength stores the length of a datagram, and its checksum if it has one; pseudo
// are the addresses.
func setUDPLength(datagram, pseudo []byte) {
	binary.BigEndian.PutUint16(datagram[4:], uint16(len(datagram)))
	if binary.BigEndian.Uint16(datagram[6:]) == 0 {
		return
	}
	binary.BigEndian.PutUint16(datagram[6:], 0)
	check := ^sum16(datagram, uint32(sum16(pseudo, 0))+protocolUDP+uint32(len(datagram)))
	if check == 0 {
		check = 0xffff
	}
	binary.BigEndian.PutUint16(datagram[6:], check)
}

func setHeaderChecksum(header []byte) {
	binary.BigEndian.PutUint16(header[10:], 0)
	binary.BigEndian.PutUint16(header[10:], ^sum16(header, 0))
}

// sum16 adds up words as Internet checksums do (RFC 1071).
func sum16(data []byte, sum uint32) uint16 {
	for len(data) > 1 {
		sum += uint32(binary.BigEndian.Uint16(data))
		data = data[2:]
	}
	if len(data) == 1 {
		sum += uint32(data[0]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}
