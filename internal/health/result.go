package health

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A Cause names what a check met. Its values are part of the API.
type Cause string

// The causes.
const (
	ProcessDown          Cause = "process-down"    // the host refuses the connection
	PathBroken           Cause = "vip-path-broken" // the server answers at its own address, but not for the VIP
	HostDown             Cause = "host-down"       // it answers nothing, at no address
	NoNextHop            Cause = "no-next-hop"     // no packet can be sent to it: no route, or nobody answers ARP
	Timeout              Cause = "timeout"         // no answer in time
	Slow                 Cause = "slow"            // connected, but no answer in time
	ConnectionReset      Cause = "connection-reset"
	BadStatus            Cause = "bad-status"
	BadBody              Cause = "bad-body"
	BadDigest            Cause = "bad-digest"
	BadAnswer            Cause = "bad-answer" // not what the protocol asks for
	NotServing           Cause = "not-serving"
	CertificateExpired   Cause = "certificate-expired"
	CertificateUntrusted Cause = "certificate-untrusted"
	CertificateName      Cause = "certificate-name"
	TLSFailed            Cause = "tls-failed"
	ScriptFailed         Cause = "script-failed"
	FileUnreadable       Cause = "file-unreadable"
	FileDown             Cause = "file-down" // the file says 0 or less
	Flapping             Cause = "flapping"  // up and down in turns
	// PathUnavailable and CheckFailed are faults of the checker's own host, and no
	// verdict on a real server.
	PathUnavailable Cause = "path-unavailable"
	CheckFailed     Cause = "check-failed"
)

// ownFault reports whether the checker could not ask.
func (c Cause) ownFault() bool { return c == PathUnavailable || c == CheckFailed }

// A Result is the answer to one question.
type Result struct {
	Cause   Cause  // "": success
	Detail  string // for a person to read; of success, too
	Latency time.Duration
	// Weight is what the answer says that the server's weight should be; nil: nothing.
	Weight *uint32
}

// OK reports whether it is a success.
func (r Result) OK() bool { return r.Cause == "" }

func success(format string, args ...any) Result { return Result{Detail: fmt.Sprintf(format, args...)} }

func failure(cause Cause, format string, args ...any) Result {
	return Result{Cause: cause, Detail: fmt.Sprintf(format, args...)}
}

// A dialError is met before there is a connection.
type dialError struct{ cause error }

func (e *dialError) Error() string { return e.cause.Error() }
func (e *dialError) Unwrap() error { return e.cause }

// explain turns an error of a check into its result. What the network said on the
// way is the cause that comes first.
func explain(err error) Result {
	var (
		unreachable *UnreachableError
		dial        *dialError
		expired     x509.CertificateInvalidError
		authority   x509.UnknownAuthorityError
		hostname    x509.HostnameError
		certificate *tls.CertificateVerificationError
		record      tls.RecordHeaderError
		alert       tls.AlertError
		op          *net.OpError
	)
	connecting := errors.As(err, &dial)
	switch {
	case errors.As(err, &unreachable):
		return failure(unreachable.Cause, "%s", unreachable.Detail)
	case errors.Is(err, unix.ECONNREFUSED):
		return failure(ProcessDown, "connection refused")
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTDOWN):
		return failure(HostDown, "%s", words(err))
	case errors.As(err, &expired) && expired.Reason == x509.Expired:
		return failure(CertificateExpired, "%v", expired)
	case errors.As(err, &hostname):
		return failure(CertificateName, "%v", hostname)
	case errors.As(err, &authority), errors.As(err, &certificate):
		return failure(CertificateUntrusted, "%s", words(err))
	case errors.As(err, &record), errors.As(err, &alert), errors.Is(err, http.ErrSchemeMismatch):
		return failure(TLSFailed, "%s", words(err))
	case isTimeout(err) && connecting:
		return failure(Timeout, "no answer to the connection request")
	case isTimeout(err):
		return failure(Slow, "connected, but no whole answer in time")
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, unix.EPIPE):
		return failure(ConnectionReset, "the connection ended before the answer")
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM),
		errors.Is(err, unix.EADDRNOTAVAIL), errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return failure(CheckFailed, "%s", words(err))
	case connecting && errors.As(err, &op):
		return failure(HostDown, "%s", words(err))
	}
	return failure(BadAnswer, "%s", words(err))
}

func isTimeout(err error) bool {
	var network net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, unix.ETIMEDOUT) ||
		errors.As(err, &network) && network.Timeout()
}

// words returns the innermost cause that says something.
func words(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		err = op.Err
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		err = call.Err
	}
	return err.Error()
}
