package health

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"regexp"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A prober puts one question to one target, as often as it is told to.
type prober struct {
	network Network
	check   lvs.Check
	target  Target
	body    *regexp.Regexp // nil: any
	roots   *rootStore     // nil: those of the system
}

// newProber returns why a check can't be made, for what package config does not see.
func newProber(network Network, check lvs.Check, target Target) (*prober, error) {
	switch {
	case check.Interval <= 0 || check.Timeout <= 0 || check.Timeout > check.Interval:
		return nil, fmt.Errorf("check %s: interval %s, timeout %s: %w: want a timeout above 0 and not above the interval",
			check.Type, check.Interval, check.Timeout, lvs.ErrInvalid)
	case check.Jitter < 0 || check.Jitter > check.Interval:
		return nil, fmt.Errorf("check %s: jitter %s: %w: want 0 to the interval, %s", check.Type, check.Jitter, lvs.ErrInvalid, check.Interval)
	case check.Rise < 1 || check.Fall < 1:
		return nil, fmt.Errorf("check %s: rise %d, fall %d: %w: want at least 1", check.Type, check.Rise, check.Fall, lvs.ErrInvalid)
	}
	p := &prober{network: network, check: check, target: target}
	if check.HTTP.BodyRegex != "" {
		var err error
		if p.body, err = regexp.Compile(check.HTTP.BodyRegex); err != nil {
			return nil, fmt.Errorf("check %s: %w: %w", check.Type, lvs.ErrInvalid, err)
		}
	}
	if check.TLS != nil && check.TLS.CA != "" {
		p.roots = &rootStore{path: check.TLS.CA}
		if _, err := p.roots.load(); err != nil {
			return nil, fmt.Errorf("check %s: %w: %w", check.Type, lvs.ErrInvalid, err)
		}
	}
	return p, nil
}

// ask puts the question by a way that is not the target's own for a diagnosis. The
// time that ctx has is the check's.
func (p *prober) ask(ctx context.Context, target Target) Result {
	begin := time.Now()
	result := p.askBy(ctx, target)
	result.Latency = time.Since(begin)
	return result
}

func (p *prober) askBy(ctx context.Context, target Target) Result {
	switch p.check.Type {
	case lvs.CheckTCP:
		return p.askTCP(ctx, target)
	case lvs.CheckHTTP, lvs.CheckHTTPS, lvs.CheckHTTP2:
		return p.askHTTP(ctx, target)
	case lvs.CheckGRPC:
		return p.askGRPC(ctx, target)
	case lvs.CheckDNS:
		return p.askDNS(ctx, target)
	case lvs.CheckSMTP:
		return p.askSMTP(ctx, target)
	case lvs.CheckUDP:
		return p.askUDP(ctx, target)
	case lvs.CheckICMP:
		return p.askICMP(ctx, target)
	case lvs.CheckScript:
		return p.runScript(ctx)
	case lvs.CheckFile:
		return p.readWeight()
	}
	return failure(CheckFailed, "unknown type %q", p.check.Type)
}

// dial opens a connection that lives as long as ctx.
func (p *prober) dial(ctx context.Context, network string, target Target) (net.Conn, error) {
	conn, err := p.network.Dial(ctx, network, target)
	if err != nil {
		return nil, &dialError{err}
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			conn.Close()
			return nil, &dialError{err}
		}
	}
	return conn, nil
}

// interrupt has nobody wait for a connection any more when ctx is cancelled, until what it
// returns is called: the time that ctx had from the beginning, the connection has.
func interrupt(ctx context.Context, conn net.Conn) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
}

// askTCP connects and, if asked to, speaks TLS.
func (p *prober) askTCP(ctx context.Context, target Target) Result {
	conn, err := p.dialStream(ctx, target)
	if err != nil {
		return explain(err)
	}
	conn.Close()
	return success("connected")
}

// dialStream connects by TCP, and by TLS over it if the check says so.
func (p *prober) dialStream(ctx context.Context, target Target) (net.Conn, error) {
	conn, err := p.dial(ctx, "tcp", target)
	if err != nil || p.check.TLS == nil {
		return conn, err
	}
	return p.secure(ctx, conn, target, "")
}

// askUDP sends a datagram and waits for its answer or, if none is expected, for an
// ICMP error, which is told by the next operation on the socket.
func (p *prober) askUDP(ctx context.Context, target Target) Result {
	conn, err := p.dial(ctx, "udp", target)
	if err != nil {
		return explain(err)
	}
	defer conn.Close()
	defer interrupt(ctx, conn)()
	if _, err := conn.Write([]byte(p.check.UDP.Payload)); err != nil {
		return explain(err)
	}
	buffer := make([]byte, 64<<10)
	n, err := conn.Read(buffer)
	expect := p.check.UDP.Expect
	switch {
	case err != nil && isTimeout(err) && expect == nil:
		return success("not refused")
	case err != nil && isTimeout(err):
		return failure(Timeout, "no answer")
	case err != nil:
		return explain(err)
	case expect != nil && !expect.Begins(buffer[:n]):
		return failure(BadAnswer, "the answer begins with %x", buffer[:min(n, 16)])
	}
	return success("%d bytes", n)
}

// quote returns the beginning of what a server said, for a person to read.
func quote(data []byte) string {
	const enough = 80
	data = bytes.TrimSpace(data)
	if len(data) > enough {
		return fmt.Sprintf("%q...", data[:enough])
	}
	return fmt.Sprintf("%q", data)
}
