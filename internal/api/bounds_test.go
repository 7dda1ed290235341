package api

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

const briefly = 50 * time.Millisecond

// Who does not go on with a request is not waited for.
func TestSlowRequestsEnd(t *testing.T) {
	ended := make(chan error, 1)
	server := httptest.NewServer(withDeadlines(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		ended <- err
	}), briefly, time.Minute))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: director\r\nContent-Length: 10\r\n\r\nhalf"); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("half a request was taken for a whole one")
		}
	case <-time.After(10 * time.Second):
		t.Error("half a request is still waited for")
	}
}

// Who does not read the answer is not waited for.
func TestSlowReadersAreLeft(t *testing.T) {
	ended := make(chan error, 1)
	server := httptest.NewServer(withDeadlines(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		block := bytes.Repeat([]byte("x"), 1<<20)
		for {
			if _, err := w.Write(block); err != nil {
				ended <- err
				return
			}
		}
	}), time.Minute, briefly))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: director\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("who reads nothing is still written to")
	}
}

// A stream that has nothing to say for longer than a request or a write may take
// goes on, over HTTP/1 and HTTP/2.
func TestQuietStreamsGoOn(t *testing.T) {
	for name, version2 := range map[string]bool{"HTTP/1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			more := make(chan struct{})
			server := httptest.NewUnstartedServer(withDeadlines(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				for range 2 {
					io.WriteString(w, "line\n")
					if err := http.NewResponseController(w).Flush(); err != nil {
						t.Error(err)
					}
					<-more
				}
			}), briefly, briefly))
			server.EnableHTTP2 = version2
			server.StartTLS()
			defer server.Close()
			response, err := server.Client().Post(server.URL, "text/plain", bytes.NewReader([]byte("request")))
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			lines := bufio.NewScanner(response.Body)
			for n := range 2 {
				if !lines.Scan() {
					t.Fatalf("the stream ended after %d lines: %v", n, lines.Err())
				}
				<-time.After(3 * briefly) // it is the silence that is tested
				more <- struct{}{}
			}
			if lines.Scan() || lines.Err() != nil {
				t.Errorf("the end: %q, %v", lines.Text(), lines.Err())
			}
		})
	}
}
