// Package lvs holds the domain of Linux Virtual Server: virtual services, real
// servers, schedulers, forwarding methods and connections, as values that know
// no mechanism. It imports the standard library only; every other package may
// import it.
//
// A type that asks for a change ([Service], [RealServer]) is comparable with ==;
// the type that is read back ([ServiceStatus], [RealServerStatus]) embeds it and
// adds what was observed.
package lvs
