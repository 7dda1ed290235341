package api

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-lb/fairlead/internal/api/apitest"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// serveTLS serves a director on a loopback address until the test ends.
func serveTLS(t *testing.T, d Director, files TLSFiles) (address string) {
	t.Helper()
	l, err := ListenTLS("127.0.0.1:0", files)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- Serve(ctx, l, NewRemoteHandler(d), slog.New(slog.DiscardHandler))
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return "https://" + l.Addr().String()
}

func mustRemote(t *testing.T, r Remote) *Client {
	t.Helper()
	c, err := NewRemoteClient(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestRemoteDirector(t *testing.T) {
	soon := time.Now().Add(time.Hour)
	ours, others := apitest.NewAuthority(t), apitest.NewAuthority(t)
	cert, key := ours.Sign("director", soon)
	d := &recorder{connections: 3 * connectionBatch}
	address := serveTLS(t, d, TLSFiles{cert, key, ours.File})

	clientCert, clientKey := ours.Sign("operator", soon)
	good := Remote{address, clientCert, clientKey, ours.File}
	c := mustRemote(t, good)
	if err := c.Clear(t.Context()); err != nil {
		t.Error(err)
	}
	d.refusal = fmt.Errorf("clear: %w", lvs.ErrNoService)
	if err := c.Clear(t.Context()); !errors.Is(err, lvs.ErrNoService) {
		t.Errorf("refusal: got %v", err)
	}
	d.refusal = nil
	seen := 0
	if err := c.Connections(t.Context(), func(lvs.Connection) error { seen++; return nil }); err != nil || seen != d.connections {
		t.Errorf("%d connections, %v, want %d", seen, err, d.connections)
	}
	asked := len(d.calls)

	// To end the daemon, and with it the only way in, is not for another host.
	if err := c.HandOver(t.Context(), "another"); !errors.Is(err, lvs.ErrInvalid) || !strings.Contains(err.Error(), "own host") {
		t.Errorf("handed over: %v", err)
	}
	strangerCert, strangerKey := others.Sign("stranger", soon)
	expiredCert, expiredKey := ours.Sign("expired", time.Now().Add(-time.Minute))
	for _, test := range []struct {
		name   string
		remote Remote
		says   string
	}{
		{"another authority's certificate", Remote{address, strangerCert, strangerKey, ours.File}, "refused this client's certificate (see --cert)"},
		{"an expired certificate", Remote{address, expiredCert, expiredKey, ours.File}, "refused this client's certificate (see --cert)"},
		{"a director that is not trusted", Remote{address, clientCert, clientKey, others.File}, "its certificate does not hold (see --ca)"},
		{"a wrong name", Remote{strings.Replace(address, "127.0.0.1", "127.0.0.2", 1), clientCert, clientKey, ours.File}, "127.0.0.2"},
		{"nobody", Remote{"https://127.0.0.1:1", clientCert, clientKey, ours.File}, "https://127.0.0.1:1: connect: connection refused"},
	} {
		err := mustRemote(t, test.remote).Clear(t.Context())
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.says)
		}
	}
	if len(d.calls) != asked {
		t.Errorf("the director was asked by those who may not: %q", d.calls[asked:])
	}
}

// Without a certificate, or without TLS, nobody gets as far as a request.
func TestStrangersAreNotServed(t *testing.T) {
	ours := apitest.NewAuthority(t)
	cert, key := ours.Sign("director", time.Now().Add(time.Hour))
	d := &recorder{}
	address := serveTLS(t, d, TLSFiles{cert, key, ours.File})
	host := strings.TrimPrefix(address, "https://")

	roots, err := readCertificates(ours.File)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer transport.CloseIdleConnections()
	if response, err := (&http.Client{Transport: transport}).Get(address + "/"); err == nil {
		response.Body.Close()
		t.Errorf("a client without a certificate was answered: %s", response.Status)
	}
	conn, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: director\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil && answer.StatusCode < 400 {
		t.Errorf("a client without TLS was answered: %s", answer.Status)
	}
	if len(d.calls) != 0 {
		t.Errorf("the director was asked: %q", d.calls)
	}
}

// New certificates hold for the next connection, and those before them while the
// files make no sense.
func TestTLSFilesAreReadAgain(t *testing.T) {
	first, second := apitest.NewAuthority(t), apitest.NewAuthority(t)
	soon := time.Now().Add(time.Hour)
	cert, key := first.Sign("director", soon)
	address := serveTLS(t, &recorder{}, TLSFiles{cert, key, first.File})
	try := func(by *apitest.Authority) error {
		clientCert, clientKey := by.Sign("operator", soon)
		return mustRemote(t, Remote{address, clientCert, clientKey, by.File}).Clear(t.Context())
	}
	write := func(file string, text []byte, at time.Time) {
		t.Helper()
		if err := errors.Join(os.WriteFile(file, text, 0o600), os.Chtimes(file, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	if err := try(first); err != nil {
		t.Fatal(err)
	}
	write(cert, []byte("half a file"), time.Now().Add(time.Second))
	if err := try(first); err != nil {
		t.Errorf("with a broken file: %v", err)
	}
	newCert, newKey := second.Sign("director", soon)
	for file, from := range map[string]string{cert: newCert, key: newKey, first.File: second.File} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		write(file, text, time.Now().Add(2*time.Second))
	}
	if err := try(second); err != nil {
		t.Errorf("with new files: %v", err)
	}
}

func TestBadTLSFiles(t *testing.T) {
	ours := apitest.NewAuthority(t)
	cert, key := ours.Sign("director", time.Now().Add(time.Hour))
	_, otherKey := ours.Sign("other", time.Now().Add(time.Hour))
	for name, files := range map[string]TLSFiles{
		"nothing": {}, "no client authority": {cert, key, ""}, "no file": {cert, key, "nosuch"},
		"key of another": {cert, otherKey, ours.File}, "no certificates": {cert, key, key},
	} {
		if err := files.Check(); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if l, err := ListenTLS("127.0.0.1:0", files); err == nil {
			l.Close()
			t.Errorf("%s: listens", name)
		}
	}
	for _, address := range []string{"", "director:8443", "http://director:8443", "https://", "https://director/path"} {
		if _, err := NewRemoteClient(Remote{address, cert, key, ours.File}); err == nil {
			t.Errorf("%q: accepted", address)
		}
	}
}
