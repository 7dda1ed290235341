package api

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	fairleadv1 "github.com/fairlead-lb/fairlead/api/fairlead/v1"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// connectionBatch is how many connections travel in one message: large enough
// that the cost of a message disappears, small enough to stay in a cache.
const connectionBatch = 1024

// A connectionEncoder gathers connections into one message, whose memory it uses again
// and again.
type connectionEncoder interface {
	// add takes one connection more and reports whether the message is full.
	add(c *lvs.Connection) (full bool)
	// take returns the message, which is good until the next add, and begins another one.
	take() *fairleadv1.ListConnectionsResponse
}

// newConnectionEncoder returns one for a client that reads this content type.
func newConnectionEncoder(contentType string) connectionEncoder {
	if strings.Contains(contentType, "json") {
		return &messageEncoder{}
	}
	return &wireEncoder{}
}

// A messageEncoder fills the generated messages, for JSON to be made of them.
type messageEncoder struct{ connections []*fairleadv1.Connection }

func (e *messageEncoder) add(c *lvs.Connection) (full bool) {
	local := ""
	if c.Local.IsValid() {
		local = c.Local.String()
	}
	e.connections = append(e.connections, &fairleadv1.Connection{
		Protocol:       fairleadv1.Protocol(c.Protocol),
		Client:         c.Client.String(),
		Virtual:        c.Virtual.String(),
		Server:         c.Server.String(),
		State:          c.State.String(),
		ExpiresSeconds: secondsToWire(c.Expires),
		Packets:        c.Packets,
		Bytes:          c.Bytes,
		Template:       c.Template,
		IdleSeconds:    secondsToWire(c.Idle),
		Local:          local,

		PersistenceEngine: c.PersistenceEngine, PersistenceData: []byte(c.PersistenceData),
	})
	return len(e.connections) == connectionBatch
}

func (e *messageEncoder) take() *fairleadv1.ListConnectionsResponse {
	message := &fairleadv1.ListConnectionsResponse{Connections: e.connections}
	e.connections = nil
	return message
}

// A wireEncoder writes protobuf's wire form itself: to build the generated messages first
// takes several times as long, and tables have millions of entries. The bytes travel as
// the fields of the response that it does not know, which are sent as they are.
type wireEncoder struct {
	bytes   []byte // of the connections
	one     []byte // of the last one
	count   int
	message fairleadv1.ListConnectionsResponse
}

func (e *wireEncoder) add(c *lvs.Connection) (full bool) {
	b := e.one[:0]
	b = appendNumber(b, protocolField, uint64(c.Protocol))
	b = appendAddrPort(b, clientField, c.Client)
	b = appendAddrPort(b, virtualField, c.Virtual)
	b = appendAddrPort(b, serverField, c.Server)
	b = protowire.AppendTag(b, stateField, protowire.BytesType)
	b = protowire.AppendString(b, c.State.String())
	b = appendNumber(b, expiresSecondsField, uint64(secondsToWire(c.Expires)))
	b = appendNumber(b, packetsField, uint64(c.Packets))
	b = appendNumber(b, bytesField, c.Bytes)
	b = appendNumber(b, templateField, protowire.EncodeBool(c.Template))
	b = appendNumber(b, idleSecondsField, uint64(secondsToWire(c.Idle)))
	if c.Local.IsValid() {
		b = appendAddrPort(b, localField, c.Local)
	}
	if c.PersistenceEngine != "" {
		b = protowire.AppendString(protowire.AppendTag(b, persistenceEngineField, protowire.BytesType), c.PersistenceEngine)
		b = protowire.AppendString(protowire.AppendTag(b, persistenceDataField, protowire.BytesType), c.PersistenceData)
	}
	e.one = b
	e.bytes = protowire.AppendTag(e.bytes, connectionsField, protowire.BytesType)
	e.bytes = protowire.AppendBytes(e.bytes, b)
	e.count++
	return e.count == connectionBatch
}

// appendNumber writes a field, unless it has its default.
func appendNumber(b []byte, field protowire.Number, value uint64) []byte {
	if value == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), value)
}

// appendAddrPort writes an address as text, whose length is a single byte: it has no zone.
func appendAddrPort(b []byte, field protowire.Number, addr netip.AddrPort) []byte {
	b = append(protowire.AppendTag(b, field, protowire.BytesType), 0)
	length := len(b) - 1
	b = addr.AppendTo(b)
	b[length] = byte(len(b) - length - 1)
	return b
}

func (e *wireEncoder) take() *fairleadv1.ListConnectionsResponse {
	e.message.ProtoReflect().SetUnknown(e.bytes)
	e.bytes, e.count = e.bytes[:0], 0
	return &e.message
}

// A connectionDecoder is the other end of a connectionEncoder. It reads the
// bytes of ListConnectionsResponse itself: to build the generated messages first
// takes several times as long, and tables have millions of entries.
type connectionDecoder struct {
	known  map[string]netip.AddrPort
	states map[stateName]lvs.ConnectionState
}

// A stateName is how a state is told: protocols share names.
type stateName struct {
	protocol lvs.Protocol
	name     string
}

func newConnectionDecoder() *connectionDecoder {
	return &connectionDecoder{
		known:  map[string]netip.AddrPort{},
		states: map[stateName]lvs.ConnectionState{},
	}
}

// The field numbers of fairlead.proto.
const (
	connectionsField = 1 // of ListConnectionsResponse

	protocolField          = 1 // of Connection
	clientField            = 2
	virtualField           = 3
	serverField            = 4
	stateField             = 5
	expiresSecondsField    = 6
	packetsField           = 7
	bytesField             = 8
	templateField          = 9
	idleSecondsField       = 10
	localField             = 11
	persistenceEngineField = 12
	persistenceDataField   = 13
)

// visit calls do with each connection of a message, until it returns an error,
// which visit then returns as it is.
func (d *connectionDecoder) visit(message []byte, do func(lvs.Connection) error) error {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return malformed(n)
		}
		message = message[n:]
		if number != connectionsField || kind != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, kind, message); n < 0 {
				return malformed(n)
			}
			message = message[n:]
			continue
		}
		wire, n := protowire.ConsumeBytes(message)
		if n < 0 {
			return malformed(n)
		}
		message = message[n:]
		connection, err := d.connection(wire)
		if err != nil {
			return fmt.Errorf("read connection: %w", err)
		}
		if err := do(connection); err != nil {
			return err
		}
	}
	return nil
}

func malformed(n int) error {
	return fmt.Errorf("read connections: %w", protowire.ParseError(n))
}

func (d *connectionDecoder) connection(wire []byte) (lvs.Connection, error) {
	var c lvs.Connection
	var state []byte
	for len(wire) > 0 {
		number, kind, n := protowire.ConsumeTag(wire)
		if n < 0 {
			return c, protowire.ParseError(n)
		}
		wire = wire[n:]
		var err error
		switch kind {
		case protowire.VarintType:
			var value uint64
			if value, n = protowire.ConsumeVarint(wire); n >= 0 {
				err = setNumber(&c, number, value)
			}
		case protowire.BytesType:
			var text []byte
			if text, n = protowire.ConsumeBytes(wire); n >= 0 {
				if number == stateField {
					state = text
				}
				err = d.setText(&c, number, text)
			}
		default:
			n = protowire.ConsumeFieldValue(number, kind, wire)
		}
		if n < 0 {
			return c, protowire.ParseError(n)
		}
		if err != nil {
			return c, err
		}
		wire = wire[n:]
	}
	if (c.Protocol == 0 && !c.Template) || !c.Client.IsValid() || !c.Virtual.IsValid() || !c.Server.IsValid() {
		return c, missing("protocol, client, virtual or server")
	}
	var err error
	c.State, err = d.state(c.Protocol, state)
	return c, err
}

// state returns the state of that name, which is one of the protocol's.
func (d *connectionDecoder) state(protocol lvs.Protocol, name []byte) (lvs.ConnectionState, error) {
	if state, ok := d.states[stateName{protocol, string(name)}]; ok {
		return state, nil
	}
	state, err := lvs.ParseConnectionState(protocol, string(name))
	if err == nil {
		d.states[stateName{protocol, string(name)}] = state
	}
	return state, err
}

func setNumber(c *lvs.Connection, number protowire.Number, value uint64) (err error) {
	switch number {
	case protocolField:
		c.Protocol, err = parseProtocol("protocol", fairleadv1.Protocol(value))
	case expiresSecondsField:
		c.Expires = time.Duration(uint32(value)) * time.Second
	case packetsField:
		c.Packets = uint32(value)
	case bytesField:
		c.Bytes = value
	case templateField:
		c.Template = value != 0
	case idleSecondsField:
		c.Idle = time.Duration(uint32(value)) * time.Second
	}
	return err
}

func (d *connectionDecoder) setText(c *lvs.Connection, number protowire.Number, text []byte) (err error) {
	switch number {
	case clientField:
		var ok bool
		if c.Client, ok = parseIPv4Port(text); !ok {
			c.Client, err = parseAddrPort("client", string(text))
		}
	case virtualField:
		c.Virtual, err = d.address("virtual", text)
	case serverField:
		c.Server, err = d.address("server", text)
	case localField:
		c.Local, err = parseAddrPort("local", string(text))
	case persistenceEngineField:
		c.PersistenceEngine = string(text)
	case persistenceDataField:
		c.PersistenceData = string(text)
	}
	return err
}

// parseIPv4Port reads "192.0.2.1:80" as it is written here; ok is false for all else.
func parseIPv4Port(text []byte) (addr netip.AddrPort, ok bool) {
	const ends = "...:"
	var raw [len(ends)]byte
	for i := range raw {
		n, digits := parseDecimal(text)
		if digits == 0 || digits > 3 || n > 255 || digits == len(text) || text[digits] != ends[i] || digits > 1 && text[0] == '0' {
			return addr, false
		}
		raw[i], text = byte(n), text[digits+1:]
	}
	port, digits := parseDecimal(text)
	if digits == 0 || digits > 5 || port > 65535 || digits != len(text) {
		return addr, false
	}
	return netip.AddrPortFrom(netip.AddrFrom4(raw), uint16(port)), true
}

// parseDecimal reads the digits that text begins with.
func parseDecimal(text []byte) (n uint32, digits int) {
	for ; digits < len(text) && '0' <= text[digits] && text[digits] <= '9'; digits++ {
		n = n*10 + uint32(text[digits]-'0')
	}
	return n, digits
}

func (d *connectionDecoder) address(field string, text []byte) (netip.AddrPort, error) {
	if addr, ok := d.known[string(text)]; ok {
		return addr, nil
	}
	addr, err := parseAddrPort(field, string(text))
	if err == nil {
		d.known[string(text)] = addr
	}
	return addr, err
}

// A rawMessage is a message as its bytes, for connectionDecoder.
type rawMessage struct{ bytes []byte }

// A rawCodec is connect's protobuf codec for a client whose responses are
// rawMessages.
type rawCodec struct{}

// Name returns that of connect's own protobuf codec, which the server speaks.
func (rawCodec) Name() string { return "proto" }

// Marshal implements [connect.Codec].
func (rawCodec) Marshal(request any) ([]byte, error) {
	message, ok := request.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("marshal %T: not a protobuf message", request)
	}
	return proto.Marshal(message)
}

// Unmarshal implements [connect.Codec].
func (rawCodec) Unmarshal(data []byte, response any) error {
	message, ok := response.(*rawMessage)
	if !ok {
		return fmt.Errorf("unmarshal %T: not a raw message", response)
	}
	message.bytes = append(message.bytes[:0], data...)
	return nil
}
