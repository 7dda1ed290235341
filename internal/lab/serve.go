package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"
)

// The headers of a real server's answer: the two ends of the connection as the
// server's kernel knows them.
const (
	clientHeader  = "Client-Address"
	virtualHeader = "Virtual-Address"
)

// largestRequest bounds what a client may send at once.
const largestRequest = 64 << 20

// Serve is the real server's own program: HTTP on [HTTPPort] of every address,
// and UDP on [EchoPort] of the VIPs, both answered with the name. Once everything
// listens it writes a byte to file descriptor 3, on which the lab waits. It
// returns when ctx ends.
func Serve(ctx context.Context, name string) error {
	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", HTTPPort))
	if err != nil {
		return err
	}
	var echoes []net.PacketConn
	for _, family := range []Family{IPv4, IPv6} {
		echo, err := net.ListenPacket("udp", netip.AddrPortFrom(family.VIP(), EchoPort).String())
		if err != nil {
			return err
		}
		echoes = append(echoes, echo)
	}
	server := &http.Server{Handler: answer(name), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1+len(echoes))
	go func() { failed <- server.Serve(listener) }()
	for _, echo := range echoes {
		go func() { failed <- answerDatagrams(echo, name) }()
	}
	if err := tellReady(); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	errs := []error{server.Close()}
	for _, echo := range echoes {
		errs = append(errs, echo.Close())
	}
	return errors.Join(errs...)
}

func tellReady() error {
	pipe := os.NewFile(3, "ready")
	_, err := pipe.Write([]byte{1})
	return errors.Join(err, pipe.Close())
}

func answer(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// An answer says that all of the request has come.
		if _, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, largestRequest)); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set(clientHeader, r.RemoteAddr)
		if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
			w.Header().Set(virtualHeader, local.String())
		}
		fmt.Fprintln(w, name)
	})
}

// answerDatagrams answers until the socket is closed.
func answerDatagrams(conn net.PacketConn, name string) error {
	prefix := []byte(name + " ")
	buffer := make([]byte, 1<<16)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return err
		}
		if _, err := conn.WriteTo(append(prefix[:len(prefix):len(prefix)], buffer[:n]...), from); err != nil {
			return err
		}
	}
}
