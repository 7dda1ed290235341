package health

import (
	"context"
	"math/rand/v2"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

const (
	protocolICMP   = 1
	protocolICMPv6 = 58
)

// An identified connection knows the identifier that its echo requests must have, so
// that the answers come back to it.
type identified interface{ EchoID() uint16 }

func (p *prober) askICMP(ctx context.Context, target Target) Result {
	conn, err := p.dial(ctx, "icmp", target)
	if err != nil {
		return explain(err)
	}
	defer conn.Close()
	defer interrupt(ctx, conn)()
	request := icmp.Message{Type: ipv4.ICMPTypeEcho}
	reply, protocol := icmp.Type(ipv4.ICMPTypeEchoReply), protocolICMP
	if target.Address.Addr().Is6() {
		request.Type, reply, protocol = ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply, protocolICMPv6
	}
	id := uint16(rand.Uint32())
	if known, ok := conn.(identified); ok {
		id = known.EchoID()
	}
	sequence := int(uint16(rand.Uint32()))
	request.Body = &icmp.Echo{ID: int(id), Seq: sequence, Data: []byte(userAgent)}
	data, err := request.Marshal(nil)
	if err != nil {
		return failure(CheckFailed, "%v", err)
	}
	if _, err := conn.Write(data); err != nil {
		return explain(err)
	}
	buffer := make([]byte, 2048)
	for {
		n, err := conn.Read(buffer)
		if err != nil && isTimeout(err) {
			return failure(Timeout, "no answer to the echo request")
		}
		if err != nil {
			return explain(err)
		}
		message, err := icmp.ParseMessage(protocol, buffer[:n])
		if err != nil {
			continue
		}
		// Others on this host may ask the same server.
		if echo, ok := message.Body.(*icmp.Echo); ok && message.Type == reply && echo.ID == int(id) && echo.Seq == sequence {
			return success("echo")
		}
	}
}
