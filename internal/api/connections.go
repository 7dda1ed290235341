package api

import (
	"fmt"
	"net/netip"
	"time"

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

// A connectionDecoder is the other end of a connectionEncoder.
type connectionDecoder struct {
	known  map[string]netip.AddrPort
	states map[string]lvs.ConnectionState
}

func newConnectionDecoder() *connectionDecoder {
	d := &connectionDecoder{
		known:  map[string]netip.AddrPort{},
		states: map[string]lvs.ConnectionState{},
	}
	for s := lvs.StateNone; s <= lvs.StateUDP; s++ {
		d.states[s.String()] = s
	}
	return d
}

func (d *connectionDecoder) decode(wire *fairleadv1.Connection) (lvs.Connection, error) {
	protocol, err := parseProtocol("connection.protocol", wire.Protocol)
	if err != nil {
		return lvs.Connection{}, err
	}
	client, err := parseAddrPort("connection.client", wire.Client)
	if err != nil {
		return lvs.Connection{}, err
	}
	virtual, err := d.address("connection.virtual", wire.Virtual)
	if err != nil {
		return lvs.Connection{}, err
	}
	server, err := d.address("connection.server", wire.Server)
	if err != nil {
		return lvs.Connection{}, err
	}
	state, ok := d.states[wire.State]
	if !ok {
		return lvs.Connection{}, fmt.Errorf("connection.state %q: %w: unknown", wire.State, lvs.ErrInvalid)
	}
	return lvs.Connection{
		Protocol: protocol,
		Client:   client,
		Virtual:  virtual,
		Server:   server,
		State:    state,
		Expires:  time.Duration(wire.ExpiresSeconds) * time.Second,
		Packets:  wire.Packets,
		Bytes:    wire.Bytes,
	}, nil
}

func (d *connectionDecoder) address(field, text string) (netip.AddrPort, error) {
	addr, ok := d.known[text]
	if !ok {
		var err error
		if addr, err = parseAddrPort(field, text); err != nil {
			return addr, err
		}
		d.known[text] = addr
	}
	return addr, nil
}
