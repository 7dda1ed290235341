package random

import (
	"slices"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// Features are what scenarios may ask for.
type Features struct {
	Schedulers     []lvs.Scheduler
	SchedulerFlags bool
	SCTP           bool
	Persistence    bool // -p and port 0
	SIP            bool // --pe sip
	OnePacket      bool
	Marks          bool
	Tunnels        bool     // -i, to the other family too
	Masquerading   bool     // -m, and packets of real servers
	ICMP           bool     // errors about connections
	Sysctls        []string // NAME=VALUE, other than the defaults
}

// notInKernel are schedulers that Debian's user-mode-linux lacks.
var notInKernel = []lvs.Scheduler{lvs.PowerOfTwo}

// Probe asks for each feature: whether a new director accepts some commands of
// ipvsadm, and a sysctl.
func Probe(accepts func(commands ...string) bool, acceptsSysctl func(setting string) bool) Features {
	const tcp, udp = "-A -t 192.0.2.1:80 ", "-A -u 192.0.2.1:53 "
	var f Features
	for _, s := range lvs.Schedulers() {
		if !slices.Contains(notInKernel, s) && accepts(tcp+"-s "+string(s)) {
			f.Schedulers = append(f.Schedulers, s)
		}
	}
	f.SchedulerFlags = accepts(tcp+"-s sh -b sh-port") && accepts(tcp+"-s mh -b mh-port")
	f.SCTP = accepts("-A --sctp-service 192.0.2.1:80 -s rr")
	f.Persistence = accepts("-A -t 192.0.2.1:0 -s rr -p 100 -M 255.255.255.0")
	f.SIP = accepts(udp + "-s rr -p 100 --pe sip")
	f.OnePacket = accepts(udp + "-s rr -o")
	f.Marks = accepts("-A -f 1 -s rr")
	f.Tunnels = accepts(tcp+"-s rr", "-a -t 192.0.2.1:80 -r [2001:db8:1::11]:80 -i")
	f.Masquerading = accepts(tcp+"-s rr", "-a -t 192.0.2.1:80 -r 198.51.100.11:8080 -m")
	f.ICMP = true
	for _, setting := range []string{
		"conn_reuse_mode=0", "conn_reuse_mode=2", "conn_reuse_mode=3", "expire_nodest_conn=1", "expire_quiescent_template=1",
		"sloppy_tcp=1", "sloppy_sctp=1", "secure_tcp=3",
	} {
		if acceptsSysctl(setting) {
			f.Sysctls = append(f.Sysctls, setting)
		}
	}
	return f
}
