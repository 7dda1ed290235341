package api

import (
	"io"
	"net/http"
	"time"
)

const (
	// bodyTimeout bounds how long a peer may take to send its request.
	bodyTimeout = 30 * time.Second
	// writeTimeout bounds how long a peer may take to accept what it is sent next.
	writeTimeout = 60 * time.Second
	// idleTimeout is for how long a connection is kept that asks for nothing.
	idleTimeout = 2 * time.Minute
	// maxHeader bounds the header of a request.
	maxHeader = 16 << 10
)

// withDeadlines gives the request's body and every write of the answer a time of
// their own. A deadline of the whole would end a stream that goes on for hours.
func withDeadlines(h http.Handler, body, write time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		if r.Body != nil && r.Body != http.NoBody && control.SetReadDeadline(time.Now().Add(body)) == nil {
			r.Body = &timedBody{r.Body, control}
		}
		h.ServeHTTP(&timedWriter{w, control, write}, r)
	})
}

// A timedBody lifts the deadline when it has been read.
type timedBody struct {
	io.ReadCloser
	control *http.ResponseController
}

// Read implements [io.Reader].
func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		if lift := b.control.SetReadDeadline(time.Time{}); lift != nil {
			return n, lift
		}
	}
	return n, err
}

// A timedWriter has a deadline while it writes.
type timedWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
}

// Unwrap lets http.ResponseController find what is below.
func (w *timedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Write implements [io.Writer].
func (w *timedWriter) Write(p []byte) (n int, err error) {
	err = w.timed(func() (err error) {
		n, err = w.ResponseWriter.Write(p)
		return err
	})
	return n, err
}

// FlushError is what http.ResponseController calls.
func (w *timedWriter) FlushError() error { return w.timed(w.control.Flush) }

// Flush implements [http.Flusher].
func (w *timedWriter) Flush() { w.FlushError() }

func (w *timedWriter) timed(do func() error) error {
	if err := w.control.SetWriteDeadline(time.Now().Add(w.timeout)); err != nil {
		return do() // of a writer without deadlines, such as a test's
	}
	if err := do(); err != nil {
		return err
	}
	return w.control.SetWriteDeadline(time.Time{})
}
