package health

import (
	"context"
	"errors"
	"net/textproto"
	"os"
)

// The replies of RFC 5321 that go on.
const (
	smtpReady  = 220
	smtpClosed = 221
	smtpOK     = 250
)

func (p *prober) askSMTP(ctx context.Context, target Target) Result {
	conn, err := p.dialStream(ctx, target)
	if err != nil {
		return explain(err)
	}
	text := textproto.NewConn(conn)
	defer text.Close()
	defer interrupt(ctx, conn)()
	name := p.check.SMTP.Helo
	if name == "" {
		if name, err = os.Hostname(); err != nil {
			return failure(CheckFailed, "%v", err)
		}
	}
	_, greeting, err := text.ReadResponse(smtpReady)
	if err != nil {
		return explainSMTP("greeting", err)
	}
	if err := say(text, smtpOK, "EHLO "+name); err != nil {
		var refused *textproto.Error
		if !errors.As(err, &refused) {
			return explain(err)
		}
		if err := say(text, smtpOK, "HELO "+name); err != nil {
			return explainSMTP("HELO", err)
		}
	}
	if err := say(text, smtpClosed, "QUIT"); err != nil {
		return explainSMTP("QUIT", err)
	}
	return success("%s", greeting)
}

func say(text *textproto.Conn, want int, command string) error {
	if err := text.PrintfLine("%s", command); err != nil {
		return err
	}
	_, _, err := text.ReadResponse(want)
	return err
}

func explainSMTP(command string, err error) Result {
	var refused *textproto.Error
	if errors.As(err, &refused) {
		return failure(BadAnswer, "%s: %d %s", command, refused.Code, refused.Msg)
	}
	return explain(err)
}
