package health

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/miekg/dns"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// patience is for checks that should be answered: much longer than it takes.
const patience = 5 * time.Second

func checkOf(kind lvs.CheckType) lvs.Check {
	return lvs.Check{Type: kind, Path: lvs.PathRIP, Interval: patience, Timeout: patience, Rise: 1, Fall: 1}
}

// ask puts a question to an address once.
func ask(t *testing.T, check lvs.Check, at string) Result {
	t.Helper()
	target := Target{Path: lvs.PathRIP}
	if at != "" {
		target.Address = netip.MustParseAddrPort(at)
	}
	p, err := newProber(Host{}, check, target)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), check.Timeout)
	defer cancel()
	return p.ask(ctx, target)
}

func wantCause(t *testing.T, what string, got Result, want Cause) {
	t.Helper()
	if got.Cause != want {
		t.Errorf("%s: %q (%s), want %q", what, got.Cause, got.Detail, want)
	}
}

// silent takes connections and says nothing.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// closed is an address where nobody listens.
func closed(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	return l.Addr().String()
}

// speaks answers each connection with fixed words, and hangs up.
func speaks(t *testing.T, words string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	testhost.Say(t, l, words)
	return l.Addr().String()
}

func TestTCP(t *testing.T) {
	short := checkOf(lvs.CheckTCP)
	short.Timeout = 50 * time.Millisecond
	wantCause(t, "listens", ask(t, checkOf(lvs.CheckTCP), silent(t)), "")
	wantCause(t, "listens, IPv6", ask(t, checkOf(lvs.CheckTCP), listenIPv6(t)), "")
	wantCause(t, "nobody there", ask(t, checkOf(lvs.CheckTCP), closed(t)), ProcessDown)
	short.TLS = &lvs.TLSCheck{}
	wantCause(t, "TLS to one who is silent", ask(t, short, silent(t)), Slow)
	short.Timeout = patience
	wantCause(t, "TLS to one who has none", ask(t, short, speaks(t, "hello, here is no TLS")), TLSFailed)
}

func listenIPv6(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

func TestHTTP(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/host":
			fmt.Fprint(w, r.Host, r.Method)
		case "/query":
			fmt.Fprint(w, r.URL.RawQuery)
		case "/weight":
			w.Header().Set("X-Weight", "17")
		case "/bad-weight":
			w.Header().Set("X-Weight", "much")
		case "/moved":
			http.Redirect(w, r, "/", http.StatusFound)
		case "/broken":
			w.WriteHeader(http.StatusInternalServerError)
		case "/slow":
			select {
			case <-release:
			case <-r.Context().Done():
			}
		case "/abort":
			panic(http.ErrAbortHandler)
		default:
			fmt.Fprint(w, "well")
		}
	}))
	defer server.Close()
	defer close(release)
	at := server.Listener.Addr().String()
	weight := uint32(17)
	for _, test := range []struct {
		name   string
		change func(*lvs.Check)
		cause  Cause
		weight *uint32
	}{
		{"plain", func(*lvs.Check) {}, "", nil},
		{"host", func(c *lvs.Check) {
			c.HTTP = lvs.HTTPCheck{Path: "/host", Host: "www.example.com", Method: "POST", BodyRegex: "^www.example.comPOST$"}
		}, "", nil},
		{"query", func(c *lvs.Check) { c.HTTP = lvs.HTTPCheck{Path: "/query?a=1", BodyRegex: "^a=1$"} }, "", nil},
		{"body", func(c *lvs.Check) { c.HTTP = lvs.HTTPCheck{BodyRegex: "ill"} }, BadBody, nil},
		{"md5", func(c *lvs.Check) { c.HTTP = lvs.HTTPCheck{Digest: "7b0c1cfa07c63b2dec34abe03e4ef46c"} }, BadDigest, nil},
		{"sha256", func(c *lvs.Check) { c.HTTP = lvs.HTTPCheck{Digest: strings.Repeat("0", 64)} }, BadDigest, nil},
		{"right md5", func(c *lvs.Check) { c.HTTP = lvs.HTTPCheck{Digest: digest([]byte("well"), 32)} }, "", nil},
		{"right sha256", func(c *lvs.Check) { c.HTTP = lvs.HTTPCheck{Digest: digest([]byte("well"), 64)} }, "", nil},
		{"status", func(c *lvs.Check) { c.HTTP.Path = "/broken" }, BadStatus, nil},
		{"redirect", func(c *lvs.Check) { c.HTTP.Path = "/moved" }, BadStatus, nil},
		{"wanted status", func(c *lvs.Check) {
			c.HTTP = lvs.HTTPCheck{Path: "/moved", Status: []lvs.StatusRange{{First: 200, Last: 200}, {First: 300, Last: 399}}}
		}, "", nil},
		{"weight", func(c *lvs.Check) { c.HTTP = lvs.HTTPCheck{Path: "/weight", HeaderWeight: "X-Weight"} }, "", &weight},
		{"no weight", func(c *lvs.Check) { c.HTTP = lvs.HTTPCheck{Path: "/", HeaderWeight: "X-Weight"} }, "", nil},
		{"bad weight", func(c *lvs.Check) { c.HTTP = lvs.HTTPCheck{Path: "/bad-weight", HeaderWeight: "X-Weight"} }, BadAnswer, nil},
		{"slow", func(c *lvs.Check) { c.HTTP.Path, c.Timeout = "/slow", 100*time.Millisecond }, Slow, nil},
		{"aborted", func(c *lvs.Check) { c.HTTP.Path = "/abort" }, ConnectionReset, nil},
		{"HTTP/2", func(c *lvs.Check) { c.Type = lvs.CheckHTTP2 }, BadAnswer, nil},
	} {
		check := checkOf(lvs.CheckHTTP)
		test.change(&check)
		got := ask(t, check, at)
		wantCause(t, test.name, got, test.cause)
		if (got.Weight == nil) != (test.weight == nil) || got.Weight != nil && *got.Weight != *test.weight {
			t.Errorf("%s: weight %v", test.name, got.Weight)
		}
	}
	unreachable := lvs.Check{Type: lvs.CheckHTTP, Path: lvs.PathRIP, Interval: time.Second, Timeout: 50 * time.Millisecond, Rise: 1, Fall: 1}
	for _, kind := range []lvs.CheckType{lvs.CheckHTTP, lvs.CheckHTTPS, lvs.CheckGRPC} {
		unreachable.Type = kind
		nobody := Target{Path: lvs.PathRIP, Address: netip.MustParseAddrPort("192.0.2.11:80")}
		p, err := newProber(newFakeNetwork(func() {}), unreachable, nobody)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), unreachable.Timeout)
		wantCause(t, string(kind)+" without a connection", p.ask(ctx, nobody), Timeout)
		cancel()
	}
	wantCause(t, "no HTTP", ask(t, checkOf(lvs.CheckHTTP), speaks(t, "220 mail\r\n")), BadAnswer)
}

// issue makes a certificate that signs itself, and its file.
func issue(t *testing.T, name string, until time.Time) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

func serveTLS(t *testing.T, certificate tls.Certificate) string {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.TLS.ServerName, " ", r.Proto)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func TestHTTPS(t *testing.T) {
	good, goodCA := issue(t, "www.example.com", time.Now().Add(time.Hour))
	old, oldCA := issue(t, "www.example.com", time.Now().Add(-time.Hour))
	for _, test := range []struct {
		name        string
		certificate tls.Certificate
		kind        lvs.CheckType
		tls         *lvs.TLSCheck
		http        lvs.HTTPCheck
		cause       Cause
	}{
		{"by SNI", good, lvs.CheckHTTPS, &lvs.TLSCheck{ServerName: "www.example.com", CA: goodCA}, lvs.HTTPCheck{BodyRegex: "^www.example.com HTTP/1.1$"}, ""},
		{"by Host", good, lvs.CheckHTTPS, &lvs.TLSCheck{CA: goodCA}, lvs.HTTPCheck{Host: "www.example.com:443", BodyRegex: "^www.example.com "}, ""},
		{"HTTP/2", good, lvs.CheckHTTP2, &lvs.TLSCheck{CA: goodCA, ServerName: "www.example.com"}, lvs.HTTPCheck{BodyRegex: "HTTP/2.0$"}, ""},
		{"another name", good, lvs.CheckHTTPS, &lvs.TLSCheck{ServerName: "www.example.net", CA: goodCA}, lvs.HTTPCheck{}, CertificateName},
		{"no name", good, lvs.CheckHTTPS, &lvs.TLSCheck{CA: goodCA}, lvs.HTTPCheck{}, CertificateName},
		{"unknown authority", good, lvs.CheckHTTPS, &lvs.TLSCheck{ServerName: "www.example.com", CA: oldCA}, lvs.HTTPCheck{}, CertificateUntrusted},
		{"authorities of the system", good, lvs.CheckHTTPS, nil, lvs.HTTPCheck{Host: "www.example.com"}, CertificateUntrusted},
		{"expired", old, lvs.CheckHTTPS, &lvs.TLSCheck{ServerName: "www.example.com", CA: oldCA}, lvs.HTTPCheck{}, CertificateExpired},
		{"expired, and nobody looks", old, lvs.CheckHTTPS, &lvs.TLSCheck{SkipVerify: true}, lvs.HTTPCheck{}, ""},
		{"TCP with TLS", good, lvs.CheckTCP, &lvs.TLSCheck{ServerName: "www.example.com", CA: goodCA}, lvs.HTTPCheck{}, ""},
		{"TCP, expired", old, lvs.CheckTCP, &lvs.TLSCheck{ServerName: "www.example.com", CA: oldCA}, lvs.HTTPCheck{}, CertificateExpired},
	} {
		check := checkOf(test.kind)
		check.TLS, check.HTTP = test.tls, test.http
		wantCause(t, test.name, ask(t, check, serveTLS(t, test.certificate)), test.cause)
	}
	check := checkOf(lvs.CheckHTTPS)
	wantCause(t, "no TLS", ask(t, check, speaks(t, "HTTP/1.1 200 OK\r\n\r\n")), TLSFailed)
}

// A file of certificates that was changed is read again.
func TestRootStore(t *testing.T) {
	_, first := issue(t, "a.example.com", time.Now().Add(time.Hour))
	_, second := issue(t, "b.example.com", time.Now().Add(time.Hour))
	store := rootStore{path: first}
	before, err := store.load()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := store.load(); err != nil || again != before {
		t.Errorf("read again without a change: %v", err)
	}
	text, err := os.ReadFile(second)
	if err == nil {
		err = os.WriteFile(first, text, 0o600)
	}
	if err == nil {
		err = os.Chtimes(first, time.Time{}, time.Now().Add(time.Hour))
	}
	if err != nil {
		t.Fatal(err)
	}
	if after, err := store.load(); err != nil || after.Equal(before) {
		t.Errorf("not read again: %v", err)
	}
}

func TestGRPC(t *testing.T) {
	status, refusal := int32(grpcServing), error(nil)
	mux := http.NewServeMux()
	mux.Handle(grpcHealthCheck, connect.NewUnaryHandler(grpcHealthCheck,
		func(_ context.Context, r *connect.Request[wrapperspb.StringValue]) (*connect.Response[wrapperspb.Int32Value], error) {
			if r.Msg.Value == "unknown" {
				return nil, connect.NewError(connect.CodeNotFound, io.EOF)
			}
			return connect.NewResponse(wrapperspb.Int32(status)), refusal
		}))
	server := httptest.NewUnstartedServer(mux)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	defer server.Close()
	at := server.Listener.Addr().String()
	check := checkOf(lvs.CheckGRPC)
	wantCause(t, "serving", ask(t, check, at), "")
	status = 2
	wantCause(t, "not serving", ask(t, check, at), NotServing)
	check.GRPC.Service = "unknown"
	got := ask(t, check, at)
	wantCause(t, "unknown service", got, NotServing)
	if !strings.Contains(got.Detail, "not_found") {
		t.Errorf("detail: %s", got.Detail)
	}
	wantCause(t, "nobody", ask(t, check, closed(t)), ProcessDown)
}

func TestDNS(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, query *dns.Msg) {
		answer := new(dns.Msg).SetReply(query)
		switch question := query.Question[0]; {
		case question.Name == "silent.example.com.":
			return
		case question.Name != "www.example.com." || question.Qtype != dns.TypeA:
			answer.Rcode = dns.RcodeServerFailure
		}
		w.WriteMsg(answer)
	})}
	go server.ActivateAndServe()
	t.Cleanup(func() { server.Shutdown() })
	at := conn.LocalAddr().String()
	check := checkOf(lvs.CheckDNS)
	check.DNS = lvs.DNSCheck{Name: "www.example.com", Type: "a"}
	wantCause(t, "known", ask(t, check, at), "")
	check.DNS.Type = "AAAA"
	wantCause(t, "server failure", ask(t, check, at), BadAnswer)
	check.DNS.Name, check.Timeout = "silent.example.com", 50*time.Millisecond
	wantCause(t, "silent", ask(t, check, at), Timeout)
}

func TestSMTP(t *testing.T) {
	for _, test := range []struct {
		name, words string
		cause       Cause
	}{
		{"all well", "220 mail.example.com\r\n250-mail\r\n250 SIZE\r\n221 bye\r\n", ""},
		{"only HELO", "220 mail\r\n500 what?\r\n250 hello\r\n221 bye\r\n", ""},
		{"busy", "421 busy\r\n", BadAnswer},
		{"no HELO", "220 mail\r\n500 what?\r\n550 no\r\n", BadAnswer},
		{"hangs up", "220 mail\r\n", ConnectionReset},
		{"no SMTP", "SSH 2.0\r\n", BadAnswer},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, test.words)
			conn.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, conn)
			conn.Close()
		}()
		check := checkOf(lvs.CheckSMTP)
		check.SMTP.Helo = "director.example.com"
		wantCause(t, test.name, ask(t, check, l.Addr().String()), test.cause)
	}
}

func TestUDP(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		buffer := make([]byte, 100)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			if n > 0 {
				conn.WriteTo(append([]byte("re:"), buffer[:n]...), from)
			}
		}
	}()
	at := conn.LocalAddr().String()
	check := checkOf(lvs.CheckUDP)
	check.UDP = lvs.UDPCheck{Payload: "ping", Expect: &lvs.BytePattern{Value: "re:p", Mask: "\xff\xff\xff\xff"}}
	wantCause(t, "answers", ask(t, check, at), "")
	check.UDP.Expect = &lvs.BytePattern{Value: "no", Mask: "\xff\xff"}
	wantCause(t, "answers something else", ask(t, check, at), BadAnswer)
	check.UDP = lvs.UDPCheck{Expect: &lvs.BytePattern{}}
	check.Timeout = 50 * time.Millisecond
	wantCause(t, "silent", ask(t, check, at), Timeout)
	check.UDP.Expect = nil
	wantCause(t, "silent, and nothing is waited for", ask(t, check, at), "")
	conn.Close()
	wantCause(t, "refused", ask(t, check, at), ProcessDown)
}

func TestICMP(t *testing.T) {
	testhost.NeedRoot(t)
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		wantCause(t, at, ask(t, checkOf(lvs.CheckICMP), at), "")
	}
}

func script(t *testing.T, text string) lvs.Command {
	t.Helper()
	path := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return lvs.Command{Path: path, Args: []string{"one two"}}
}

func TestScript(t *testing.T) {
	for _, test := range []struct {
		text   string
		weigh  bool
		cause  Cause
		weight int
	}{
		{`[ "$1" = "one two" ]`, false, "", -1},
		{"echo out of order; exit 1", false, ScriptFailed, -1},
		{"exit 42", false, ScriptFailed, -1},
		{"exit 42", true, "", 40},
		{"exit 2", true, "", 0},
		{"exit 1", true, ScriptFailed, -1},
		{"kill -9 $$", true, ScriptFailed, -1},
		{"exec sleep 60", false, Timeout, -1},
		{"sleep 60 & wait", false, Timeout, -1},
	} {
		check := checkOf(lvs.CheckScript)
		check.Script = lvs.ScriptCheck{Command: script(t, test.text), Weight: test.weigh}
		if test.cause == Timeout {
			check.Timeout = 100 * time.Millisecond
		}
		got := ask(t, check, "")
		wantCause(t, test.text, got, test.cause)
		if (got.Weight == nil) != (test.weight < 0) || got.Weight != nil && int(*got.Weight) != test.weight {
			t.Errorf("%s: weight %v", test.text, got.Weight)
		}
	}
	check := checkOf(lvs.CheckScript)
	check.Script.Path = "/nonexistent"
	wantCause(t, "no script", ask(t, check, ""), CheckFailed)
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "weight")
	check := checkOf(lvs.CheckFile)
	check.File.Path = path
	wantCause(t, "no file", ask(t, check, ""), FileUnreadable)
	for _, test := range []struct {
		text   string
		weigh  bool
		cause  Cause
		weight int
	}{
		{"1\n", false, "", -1}, {"0\n", false, FileDown, -1}, {"-3", false, FileDown, -1}, {"yes", false, FileUnreadable, -1},
		{" 7\n", true, "", 7}, {"0", true, "", 0}, {"-1", true, FileUnreadable, -1}, {"2147483648", true, FileUnreadable, -1}, {"", true, FileUnreadable, -1},
	} {
		if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		check.File.Weight = test.weigh
		got := ask(t, check, "")
		wantCause(t, test.text, got, test.cause)
		if (got.Weight == nil) != (test.weight < 0) || got.Weight != nil && int(*got.Weight) != test.weight {
			t.Errorf("%q: weight %v", test.text, got.Weight)
		}
	}
}
