package api

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"
)

// A Remote says how to reach a director over the network. Cert, Key and CA are
// files in PEM.
type Remote struct {
	Address string // https://host:port
	Cert    string // of the client
	Key     string
	CA      string // "": the system's
}

// dialTimeout bounds how long a connection to a director may take to come about.
const dialTimeout = 10 * time.Second

// NewRemoteClient returns a client of a director that serves an address (see
// [ServeTLS]). It reads the files, and connects when it is first used.
func NewRemoteClient(r Remote) (*Client, error) {
	host, err := url.Parse(r.Address)
	if err != nil || host.Scheme != "https" || host.Host == "" || strings.Trim(host.Path, "/") != "" {
		return nil, fmt.Errorf("director address %q: want https://HOST:PORT; the API is served over TLS only", r.Address)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13}
	certificate, err := tls.LoadX509KeyPair(r.Cert, r.Key)
	if err != nil {
		return nil, fmt.Errorf("read the client's certificate: %w", err)
	}
	config.Certificates = []tls.Certificate{certificate}
	if r.CA != "" {
		if config.RootCAs, err = readCertificates(r.CA); err != nil {
			return nil, err
		}
	}
	transport := &http.Transport{
		TLSClientConfig:     config,
		TLSHandshakeTimeout: dialTimeout,
		ForceAttemptHTTP2:   true,
		DisableCompression:  true,
		ReadBufferSize:      64 << 10,
	}
	return newClient("https://"+host.Host, "https://"+host.Host, transport), nil
}

func readCertificates(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("read certificates: %s: there is none in it (want PEM)", file)
	}
	return pool, nil
}

// refusedByTLS returns what a person is told of a connection whose ends did not
// trust each other, nil if it was something else.
func (c *Client) refusedByTLS(err error) error {
	var (
		unknown x509.UnknownAuthorityError
		wrong   x509.HostnameError
		invalid x509.CertificateInvalidError
		noTLS   tls.RecordHeaderError
		network *net.OpError
	)
	switch {
	case err == nil, !strings.HasPrefix(c.where, "https:"):
		return nil
	case errors.As(err, &unknown), errors.As(err, &wrong), errors.As(err, &invalid):
		return fmt.Errorf("%w: %s: its certificate does not hold (see --ca): %v", ErrUnreachable, c.where, deepest(err))
	case errors.As(err, &noTLS):
		return fmt.Errorf("%w: %s does not speak TLS", ErrUnreachable, c.where)
	case errors.As(err, &network) && network.Op == "remote error": // a TLS alert
		return fmt.Errorf("%w: %s refused this client's certificate (see --cert): %v", ErrUnreachable, c.where, network.Err)
	case errors.As(err, &network) && network.Op == "dial":
		return nil
	case errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET),
		connect.CodeOf(err) == connect.CodeUnavailable && !connect.IsWireError(err):
		// TLS 1.3 has the client send before it knows whether it was let in.
		return fmt.Errorf("%w: %s closed the connection; most likely it refused this client's certificate (see --cert): %v",
			ErrUnreachable, c.where, deepest(err))
	}
	return nil
}

// deepest returns the error that all others wrap.
func deepest(err error) error {
	for errors.Unwrap(err) != nil {
		err = errors.Unwrap(err)
	}
	return err
}
