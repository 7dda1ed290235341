package api

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

// maxPeers bounds how many connections over the network there are at once.
const maxPeers = 256

// A TLSFiles names the files, in PEM, that a director serves the network with.
type TLSFiles struct {
	Cert     string
	Key      string
	ClientCA string // who signs the certificates of clients
}

// Check returns why nobody could be served with the files, nil if they can.
func (f TLSFiles) Check() error {
	_, err := (&tlsKeeper{files: f}).config()
	return err
}

// ListenTLS listens on a TCP address for clients whose certificates ClientCA has
// signed, and for nobody else; all of them may do everything. The files are read
// again when they change: connections that come later are of the new ones. While
// they can't be read, those read before stay.
func ListenTLS(address string, files TLSFiles) (net.Listener, error) {
	keeper := &tlsKeeper{files: files}
	if _, err := keeper.config(); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return tls.NewListener(netutil.LimitListener(l, maxPeers), &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return keeper.config()
		},
	}), nil
}

// A tlsKeeper keeps what is in the files. It is safe for concurrent use.
type tlsKeeper struct {
	files TLSFiles

	mu    sync.Mutex
	read  *tls.Config
	since [3]time.Time // when the files that were read had been changed
}

// config returns what the files hold now, or held when they last made sense.
func (k *tlsKeeper) config() (*tls.Config, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.files.Cert == "" || k.files.Key == "" || k.files.ClientCA == "" {
		return nil, errNoTLS
	}
	var since [3]time.Time
	for i, file := range []string{k.files.Cert, k.files.Key, k.files.ClientCA} {
		info, err := os.Stat(file)
		if err != nil {
			return k.otherwise(err)
		}
		since[i] = info.ModTime()
	}
	if k.read != nil && since == k.since {
		return k.read, nil
	}
	certificate, err := tls.LoadX509KeyPair(k.files.Cert, k.files.Key)
	if err != nil {
		return k.otherwise(err)
	}
	clients, err := readCertificates(k.files.ClientCA)
	if err != nil {
		return k.otherwise(err)
	}
	k.since = since
	k.read = &tls.Config{
		MinVersion:   tls.VersionTLS13,
		NextProtos:   []string{"h2", "http/1.1"},
		Certificates: []tls.Certificate{certificate},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    clients,
	}
	return k.read, nil
}

var errNoTLS = errors.New("want a certificate, its key, and the certificates that clients' are checked against: " +
	"the API is not served over the network without")

// otherwise returns what was read before, or the error if nothing was.
func (k *tlsKeeper) otherwise(err error) (*tls.Config, error) {
	if k.read == nil {
		return nil, fmt.Errorf("read the TLS files: %w", err)
	}
	return k.read, nil
}
