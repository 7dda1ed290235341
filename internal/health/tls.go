package health

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// A rootStore is the certificates of a file, read again when the file changes. It is
// safe for concurrent use.
type rootStore struct {
	path string

	mu      sync.Mutex
	changed time.Time
	pool    *x509.CertPool
}

func (s *rootStore) load() (*x509.CertPool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	info, err := os.Stat(s.path)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	if s.pool != nil && info.ModTime().Equal(s.changed) {
		return s.pool, nil
	}
	text, err := os.ReadFile(s.path)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("read certificates: %s has no PEM certificate", s.path)
	}
	s.pool, s.changed = pool, info.ModTime()
	return pool, nil
}

// tlsConfig returns how the check speaks TLS to a target; host is a name that it asks
// for, or "".
func (p *prober) tlsConfig(target Target, host string, protocols ...string) (*tls.Config, error) {
	config := &tls.Config{ServerName: target.Address.Addr().String(), NextProtos: protocols}
	if _, err := netip.ParseAddr(host); host != "" && err != nil {
		config.ServerName = host
	}
	check := p.check.TLS
	if check == nil {
		return config, nil
	}
	if check.ServerName != "" {
		config.ServerName = check.ServerName
	}
	config.InsecureSkipVerify = check.SkipVerify
	if p.roots != nil {
		pool, err := p.roots.load()
		if err != nil {
			return nil, &UnreachableError{CheckFailed, err.Error()}
		}
		config.RootCAs = pool
	}
	return config, nil
}

// secure speaks TLS over conn, which it closes if that fails.
func (p *prober) secure(ctx context.Context, conn net.Conn, target Target, host string, protocols ...string) (net.Conn, error) {
	config, err := p.tlsConfig(target, host, protocols...)
	if err != nil {
		conn.Close()
		return nil, err
	}
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secured, nil
}
