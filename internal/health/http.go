package health

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// maxBody is how much of an answer is looked at.
const maxBody = 1 << 20

// userAgent is what servers log.
const userAgent = "fairlead-health"

// A client is an HTTP client whose one connection leads to a target, whatever the URL
// says.
type client struct {
	http.Client
	transport *http.Transport
	connected atomic.Bool
}

// explain tells an error before there was a connection from a later one: HTTP's clients
// don't.
func (c *client) explain(err error) Result {
	if !c.connected.Load() {
		err = &dialError{err}
	}
	return explain(err)
}

func (p *prober) client(target Target) *client {
	c := &client{}
	secure, http2 := p.check.TLS != nil || p.check.Type == lvs.CheckHTTPS, p.check.Type == lvs.CheckHTTP2 || p.check.Type == lvs.CheckGRPC
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2 && secure)
	protocols.SetUnencryptedHTTP2(http2 && !secure)
	dial := func(ctx context.Context) (net.Conn, error) {
		conn, err := p.dial(ctx, "tcp", target)
		c.connected.Store(err == nil)
		return conn, err
	}
	c.transport = &http.Transport{
		DisableKeepAlives:  !http2,
		DisableCompression: true,
		Protocols:          protocols,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dial(ctx)
		},
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := dial(ctx)
			if err != nil {
				return nil, err
			}
			next := "http/1.1"
			if http2 {
				next = "h2"
			}
			return p.secure(ctx, conn, target, nameOf(p.check.HTTP.Host), next)
		},
	}
	c.Transport = c.transport
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c
}

// nameOf returns a Host header without its port.
func nameOf(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.Trim(host, "[]")
}

// url returns the address of a path at the target.
func (p *prober) url(target Target, path string) string {
	scheme := "http://"
	if p.check.TLS != nil || p.check.Type == lvs.CheckHTTPS {
		scheme = "https://"
	}
	return scheme + target.Address.String() + path
}

func (p *prober) askHTTP(ctx context.Context, target Target) Result {
	client := p.client(target)
	defer client.transport.CloseIdleConnections()
	question := p.check.HTTP
	method, path := question.Method, question.Path
	if method == "" {
		method = http.MethodGet
	}
	if path == "" {
		path = "/"
	}
	request, err := http.NewRequestWithContext(ctx, method, p.url(target, path), nil)
	if err != nil {
		return failure(CheckFailed, "%s", words(err))
	}
	request.Host = question.Host
	request.Header.Set("User-Agent", userAgent)
	response, err := client.Do(request)
	if err != nil {
		return client.explain(err)
	}
	defer response.Body.Close()
	return p.judge(response)
}

// judge looks at an answer as far as the check asks for it.
func (p *prober) judge(response *http.Response) Result {
	question := p.check.HTTP
	if !hasStatus(question.Status, response.StatusCode) {
		return failure(BadStatus, "status %d", response.StatusCode)
	}
	if p.body != nil || question.Digest != "" {
		body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
		if err != nil {
			return explain(err)
		}
		if p.body != nil && !p.body.Match(body) {
			return failure(BadBody, "nothing in the body matches %s: %s", question.BodyRegex, quote(body))
		}
		if got := digest(body, len(question.Digest)); question.Digest != "" && got != question.Digest {
			return failure(BadDigest, "the digest of the body is %s", got)
		}
	}
	result := success("status %d", response.StatusCode)
	if question.HeaderWeight == "" {
		return result
	}
	text := response.Header.Get(question.HeaderWeight)
	if text == "" {
		return result
	}
	weight, err := parseWeight(text)
	if err != nil {
		return failure(BadAnswer, "header %s: %v", question.HeaderWeight, err)
	}
	result.Weight = &weight
	return result
}

// hasStatus reports whether a status is wanted; without ranges, 200 to 299 are.
func hasStatus(ranges []lvs.StatusRange, status int) bool {
	for _, r := range ranges {
		if status >= r.First && status <= r.Last {
			return true
		}
	}
	return len(ranges) == 0 && status >= 200 && status <= 299
}

// digest returns the MD5 or, for 64 digits, the SHA-256 of a body.
func digest(body []byte, digits int) string {
	if digits == hex.EncodedLen(sha256.Size) {
		sum := sha256.Sum256(body)
		return hex.EncodeToString(sum[:])
	}
	sum := md5.Sum(body)
	return hex.EncodeToString(sum[:])
}

// parseWeight reads a weight that a server or a file says.
func parseWeight(text string) (uint32, error) {
	weight, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	switch {
	case err != nil:
		return 0, errors.New("want a whole number, got " + quote([]byte(text)))
	case weight < 0 || weight > math.MaxInt32:
		return 0, errors.New("want a weight of 0 to 2147483647, got " + strconv.FormatInt(weight, 10))
	}
	return uint32(weight), nil
}
