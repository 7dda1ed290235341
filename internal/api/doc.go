// Package api is the server and the client of the public API
// (api/fairlead/v1), over a Unix socket. Both sides speak the domain: the
// [Handler] serves anything that is a [Director], and the [Client] is one.
//
// A refusal passes through whole: on the client's side errors.Is finds the
// lvs.Err... that the director returned, and the message is the same.
package api
