// Package savefile reads and writes a director's state as text, a line an item, and
// as JSON. The text:
//
//	fairlead-save 1
//	sysctl timeout_established=3600
//	peer 192.0.2.10
//	local-address 192.0.2.32/28 ports 1024-32767
//	service tcp:192.0.2.100:80 scheduler sh flags sh-port
//	  set sloppy_tcp=1
//	  server 192.0.2.11:80 route weight 2 upper 1000 lower 800
//
// The first line names the format and its version. A set or server line is of the
// service above it; servers stand in the order in which schedulers walk them. White
// space separates words and has no other meaning; lines that are empty or begin with
// # are left out.
package savefile
