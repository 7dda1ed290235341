package api

import (
	"fmt"
	"net/netip"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	fairleadv1 "github.com/fairlead-lb/fairlead/api/fairlead/v1"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// connectionBatch is how many connections travel in one message: large enough
// that the cost of a message disappears, small enough to stay in a cache.
const connectionBatch = 1024

// A connectionEncoder gathers connections into one message, whose memory it
// uses again and again. A table has few VIPs and servers and many clients: the
// text of the few is made once.
type connectionEncoder struct {
	slab    [connectionBatch]fairleadv1.Connection
	message fairleadv1.ListConnectionsResponse
	known   map[netip.AddrPort]string
}

func newConnectionEncoder() *connectionEncoder {
	e := &connectionEncoder{known: map[netip.AddrPort]string{}}
	e.message.Connections = make([]*fairleadv1.Connection, 0, connectionBatch)
	return e
}

// add takes one connection more and reports whether the message is full.
func (e *connectionEncoder) add(c *lvs.Connection) (full bool) {
	n := len(e.message.Connections)
	wire := &e.slab[n]
	wire.Protocol = fairleadv1.Protocol(c.Protocol)
	wire.Client = c.Client.String()
	wire.Virtual = e.text(c.Virtual)
	wire.Server = e.text(c.Server)
	wire.State = c.State.String()
	wire.ExpiresSeconds = secondsToWire(c.Expires)
	wire.Packets = c.Packets
	wire.Bytes = c.Bytes
	wire.Template = c.Template
	wire.Local = ""
	if c.Local.IsValid() {
		wire.Local = c.Local.String()
	}
	wire.IdleSeconds = secondsToWire(c.Idle)
	e.message.Connections = append(e.message.Connections, wire)
	return n+1 == connectionBatch
}

func (e *connectionEncoder) text(addr netip.AddrPort) string {
	text, ok := e.known[addr]
	if !ok {
		text = addr.String()
		e.known[addr] = text
	}
	return text
}

// reset empties the message for the next batch.
func (e *connectionEncoder) reset() {
	e.message.Connections = e.message.Connections[:0]
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

	protocolField       = 1 // of Connection
	clientField         = 2
	virtualField        = 3
	serverField         = 4
	stateField          = 5
	expiresSecondsField = 6
	packetsField        = 7
	bytesField          = 8
	templateField       = 9
	idleSecondsField    = 10
	localField          = 11
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
		c.Client, err = parseAddrPort("client", string(text))
	case virtualField:
		c.Virtual, err = d.address("virtual", text)
	case serverField:
		c.Server, err = d.address("server", text)
	case localField:
		c.Local, err = parseAddrPort("local", string(text))
	}
	return err
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
