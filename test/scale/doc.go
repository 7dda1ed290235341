// Package scale tests the director at the sizes that it promises: a table of
// four million connections, made by packets, listed by ipvsadm, ended on time.
package scale
