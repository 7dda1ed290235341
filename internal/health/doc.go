// Package health finds out which real servers are fit for clients, and says what
// follows from it for their services. It knows protocols, verdicts and quorums, and
// nothing of how packets are forwarded: connections are opened by a [Network], and
// what is in force is carried out by who asks for it.
//
// A [Manager] puts each question once, however many services want its answer.
package health
