package health

import (
	"context"
	"strings"

	"github.com/miekg/dns"
)

func (p *prober) askDNS(ctx context.Context, target Target) Result {
	conn, err := p.dial(ctx, "udp", target)
	if err != nil {
		return explain(err)
	}
	defer conn.Close()
	defer interrupt(ctx, conn)()
	name, kind := p.check.DNS.Name, dns.TypeSOA
	if name == "" {
		name = "."
	}
	if t, ok := dns.StringToType[strings.ToUpper(p.check.DNS.Type)]; ok {
		kind = t
	} else if p.check.DNS.Type != "" {
		return failure(CheckFailed, "unknown type %q", p.check.DNS.Type)
	}
	query := new(dns.Msg)
	query.SetQuestion(dns.Fqdn(name), kind)
	client := dns.Client{Net: "udp"}
	answer, _, err := client.ExchangeWithConnContext(ctx, query, &dns.Conn{Conn: conn})
	switch {
	case err != nil && isTimeout(err):
		return failure(Timeout, "no answer")
	case err != nil:
		return explain(err)
	case answer.Rcode != dns.RcodeSuccess:
		return failure(BadAnswer, "%s for %s %s", dns.RcodeToString[answer.Rcode], dns.Fqdn(name), dns.TypeToString[kind])
	}
	return success("%d records", len(answer.Answer))
}
