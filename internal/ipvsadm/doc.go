// Package ipvsadm is the command line of ipvsadm 1.31: its grammar (that of
// popt, the library it reads its options with), its table of which option goes
// with which command, its messages, exit statuses and list layouts, to the byte.
//
// It decides nothing about load balancing. A command line becomes calls of a
// [Director]; what the director refuses is said in ipvsadm's words.
package ipvsadm
