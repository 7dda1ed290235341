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
	"strings"
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

// An Address is where a real server's program answers: a protocol of package net with HTTP
// behind it if it is "tcp" and what [EchoPort] tells if it is "udp", a slash, and an address
// and port; "udp/192.0.2.11:8007". An empty host is every address.
type Address string

// addressesOf returns where the program of a real server answers.
func (m Method) addressesOf(server Host) []Address {
	all := []Address{Address(fmt.Sprintf("tcp/:%d", HTTPPort))}
	for _, family := range []Family{IPv4, IPv6} {
		if !m.translates() {
			all = append(all, Address("udp/"+netip.AddrPortFrom(family.VIP(), EchoPort).String()))
			continue
		}
		own := server.Address(family)
		all = append(all,
			Address("tcp/"+netip.AddrPortFrom(own, m.ServerPort(HTTPPort)).String()),
			Address("udp/"+netip.AddrPortFrom(own, m.ServerPort(EchoPort)).String()))
	}
	return all
}

// Serve is the real server's own program: HTTP and UDP on the addresses, both answered with
// the name. Once everything listens it writes a byte to file descriptor 3, on which the lab
// waits. It returns when ctx ends.
func Serve(ctx context.Context, name string, addresses []Address) error {
	var listeners []net.Listener
	var echoes []net.PacketConn
	for _, a := range addresses {
		network, address, _ := strings.Cut(string(a), "/")
		if network == "tcp" {
			listener, err := net.Listen(network, address)
			if err != nil {
				return err
			}
			listeners = append(listeners, listener)
			continue
		}
		echo, err := net.ListenPacket(network, address)
		if err != nil {
			return err
		}
		echoes = append(echoes, echo)
	}
	server := &http.Server{Handler: answer(name), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, len(addresses))
	for _, listener := range listeners {
		go func() { failed <- server.Serve(listener) }()
	}
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
