package ipvsadm

import (
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// randomSeed returns the seed of a test: a new one each time, or $SEED to repeat
// a failure. It is in the test's log.
func randomSeed(tb testing.TB) uint64 {
	tb.Helper()
	seed := rand.Uint64()
	if text := os.Getenv("SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			tb.Fatalf("SEED: %v", err)
		}
	}
	tb.Logf("SEED=%d", seed)
	return seed
}

func pick[T any](random *rand.Rand, from []T) T { return from[random.IntN(len(from))] }

var (
	someHosts = []string{
		"192.0.2.10", "192.0.2.11", "198.51.100.11", "198.51.100.12", "203.0.113.7", "[2001:db8::1]", "[2001:db8::2]",
		"[2001:db8::1:0:0:3]", "[::ffff:192.0.2.1]", "[::1.2.3.4]", "www.example.com", "six.example.com", "nohost.example.com",
		"10.0.0.1", "224.0.0.1", "127.1", "0x7f.1", "010.1.1.1", "1.2.3.4.5", "256.0.0.1", "12345", "", "2001:db8::1", "[192.0.2.9]",
		"[192.0.2.9:81]", "[", "[]", "]", "192.0.2.1 x", "1.2.3", "0xffffffff", "4294967295", "4294967296", "08.1.1.1", "[fe80::1%lo]",
		"192.0.2.", ".1", "1..2", "0x", "0", "[::]", "[2001:db8:0:0:1::1]", "[1:2:3:4:5:6:7::]",
	}
	somePorts = []string{
		":80", ":80", ":443", ":0", "", ":", ":http", ":domain", ":tftp", ":nosuch", ":65535", ":65536", ":-1", ":+8", ": 9", ":9 ",
		":080", ":0x50", ":80:90", ":99999999999999999999",
	}
	someNumbers = []string{
		"0", "1", "2", "10", "64", "128", "129", "255", "256", "300", "65507", "65508", "65535", "65536", "2678400", "2678401",
		"2147483647", "2147483648", "4294967295", "4294967296", "-1", "+5", " 6", "7 ", "x", "", "0x10", "010", "64x", "9223372036854775807",
		"9223372036854775808", "99999999999999999999999", "-9223372036854775809", "\t8", "--", "-", "4294967360",
	}
	someMarks = []string{"1", "2", "7", "8", "2147483647", "4294967296", "0", "-1", "x", "+3", " 4", "5x", ""}
	someMasks = []string{
		"255.255.255.0", "255.255.255.255", "255.0.255.0", "0.0.0.0", "24", "64", "128", "129", "0", "www.example.com", "nohost.example.com", "x", "",
		"255.255.255.0 y", "0xffffff00", "-1", "64y", "4294967360",
	}
	someSchedulers = []string{"rr", "wrr", "lc", "wlc", "sh", "mh", "ovf", "nosuch", "", "none", "SH", "averylongnameofascheduler"}
	// No third flag: see TestSaveMends.
	someFlags = []string{
		"flag-1", "flag-2", "flag-1", "sh-fallback", "sh-port", "mh-fallback", "mh-port", "nosuch", "flag-1,flag-2", "flag-1,,flag-2",
		"sh-port,sh-fallback", "mh-port,mh-fallback", ",sh-port", "sh-port,", "", "flag-1,x", "flag-1 ",
	}
)

// randomValue returns an argument for an option, mostly of the kind it wants.
func randomValue(random *rand.Rand, o *option) string {
	if random.IntN(25) == 0 {
		return pick(random, []string{"", "-", "--", "-n", "ipvsadm", "=", "=5", "x", "-L"})
	}
	switch o.token {
	case optService:
		if o.long == "fwmark-service" {
			return pick(random, someMarks)
		}
		if random.IntN(2) == 0 {
			return pick(random, someHosts[:7]) + pick(random, somePorts[:4])
		}
		return pick(random, someHosts) + pick(random, somePorts)
	case optServer:
		if random.IntN(2) == 0 {
			return pick(random, someHosts[:7]) + pick(random, somePorts[:5])
		}
		return pick(random, someHosts) + pick(random, somePorts)
	case optScheduler:
		return pick(random, someSchedulers)
	case optSchedFlags:
		return pick(random, someFlags)
	case optNetmask:
		return pick(random, someMasks)
	case optTunType:
		return pick(random, []string{"ipip", "gue", "gre", "gue", "gre", "nosuch", ""})
	case optEngine:
		return pick(random, []string{"sip", "sip", "nosuch", ""})
	case optMcastGroup:
		return pick(random, []string{"224.0.0.81", "ff02::81", "192.0.2.1", "2001:db8::1", "224.1", "", "x", "ff02::1%lo", "::ffff:224.0.0.1", "239.255.255.255", "240.0.0.1"})
	}
	return pick(random, someNumbers)
}

// randomOption returns the words of one option.
func randomOption(random *rand.Rand, o *option) []string {
	value := ""
	hasValue := o.argument != noArgument && random.IntN(40) != 0
	if o.argument == mayHaveArgument {
		hasValue = random.IntN(2) == 0
	}
	if random.IntN(60) == 0 {
		hasValue = !hasValue
	}
	if hasValue {
		value = randomValue(random, o)
	}
	name := "--" + o.long
	if o.short != 0 && random.IntN(3) != 0 {
		name = "-" + string(o.short)
		if hasValue && random.IntN(5) == 0 {
			return []string{name + pick(random, []string{"", "="}) + value}
		}
	} else if hasValue && random.IntN(4) == 0 {
		return []string{name + "=" + value}
	}
	if !hasValue {
		return []string{name}
	}
	return []string{name, value}
}

// randomLine returns a command line: half of them are meant well, the others
// are a command, mostly options that go with it, and now and then anything.
func randomLine(random *rand.Rand) []string {
	if random.IntN(2) == 0 {
		return wellMeantLine(random)
	}
	var commands []*option
	for i := range grammar {
		if grammar[i].token <= cmdVersion {
			commands = append(commands, &grammar[i])
		}
	}
	command := pick(random, commands)
	words := randomOption(random, command)
	if command.argument == needsArgument && random.IntN(4) != 0 {
		words = []string{"--" + command.long, pick(random, []string{"master", "backup", "nosuch"})}
	}
	rest := randomOptions(random, command.token)
	if command.token == cmdSet {
		for range random.IntN(5) {
			rest = append(rest, []string{pick(random, someNumbers)})
		}
	}
	if random.IntN(30) == 0 {
		rest = append(rest, []string{pick(random, []string{"", "-", "--", "extra", "-q", "--nosuch", "--num", "-nX", "-L", "-n=", "---n", "--=3", "--numeric=1"})})
	}
	random.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	for _, r := range rest {
		isShort := func(word string) bool { return len(word) > 1 && word[0] == '-' && word[1] != '-' }
		if last := words[len(words)-1]; len(words) == 1 && isShort(last) && isShort(r[0]) && random.IntN(3) == 0 {
			words = append([]string{last + r[0][1:]}, r[1:]...)
			continue
		}
		words = append(words, r...)
	}
	if random.IntN(100) == 0 {
		words = append([]string{pick(random, []string{"extra", "", "-", "--", "-n"})}, words...)
	}
	return words
}

// randomOptions returns options, most of them such as go with a command.
func randomOptions(random *rand.Rand, command token) [][]string {
	var out [][]string
	for i := range grammar {
		o := &grammar[i]
		if o.token <= cmdVersion || o.long == "fullnat" || o.token == optTOA { // not genuine
			continue
		}
		chance := 120
		if int(command) < len(commandRules) {
			switch r := commandRules[command]; {
			case r.needed.has(o.token):
				chance = 3
			case r.allowed.has(o.token) || r.oneOf.has(o.token):
				chance = 8
			}
		}
		if random.IntN(chance) == 0 {
			out = append(out, randomOption(random, o))
		}
	}
	return out
}

// wellMeantLine returns a command line that is right, unless its parts do not go
// together or the director has no such service.
func wellMeantLine(random *rand.Rand) []string {
	maybe := func(words string) string {
		if random.IntN(3) == 0 {
			return " " + words
		}
		return ""
	}
	service := pick(random, []string{
		"-t 192.0.2.10:80", "-t 192.0.2.10:0", "-t www.example.com:http", "-u 192.0.2.10:53", "--sctp-service=192.0.2.11:80",
		"-t [2001:db8::1]:80", "-u [2001:db8::2]:443", "-f 7", "-f 7 -6", "--fwmark-service 8",
	})
	number := func(from ...int) string { return strconv.Itoa(pick(random, from)) }
	line := ""
	switch random.IntN(8) {
	case 0, 1:
		line = pick(random, []string{"-A ", "-A ", "--edit-service "}) + service + maybe("-s "+pick(random, []string{"rr", "wrr", "sh", "mh", "wlc"})) +
			maybe("-p "+number(1, 300, maxTimeout)) + maybe("-M "+pick(random, []string{"255.255.255.0", "64", "128"})) +
			maybe("--pe sip") + maybe("-o") + maybe("-b "+pick(random, someFlags[:10]))
	case 2, 3, 4:
		line = pick(random, []string{"-a ", "-a ", "--edit-server "}) + service + " -r " +
			pick(random, []string{"198.51.100.11", "198.51.100.12:8080", "198.51.100.13:http", "[2001:db8::11]:80", "2001:db8::12"}) +
			maybe(pick(random, []string{"-g", "-m"})) + maybe("-w"+number(0, 1, 5, 2147483647)) + maybe("-x "+number(0, 10)) + maybe("-y "+number(0, 5, 20))
		if random.IntN(3) == 0 {
			line += " -i" + maybe(pick(random, []string{
				"--tun-type ipip", "--tun-type gre", "--tun-type gre --tun-csum", "--tun-type=gue --tun-port 6080", "--tun-type gue --tun-port 6081 --tun-remcsum",
			}))
		}
	case 5:
		line = pick(random, []string{"-D " + service, "-d " + service + " -r 198.51.100.11", "-Z", "-Z " + service})
	case 6:
		line = "--set " + number(0, 1, 900, maxTimeout) + " " + number(0, 120) + " " + number(0, 300)
	case 7:
		line = pick(random, []string{"-L", "-l", "--list"}) + maybe("-n") + maybe(service) + maybe("--stats") + maybe("--rate") +
			maybe("--thresholds") + maybe("--tun-info") + maybe("--nosort")
	}
	return strings.Fields(line)
}

// randomRestoreLine returns a line of -R.
func randomRestoreLine(random *rand.Rand) string {
	line := strings.Join(randomLine(random), pick(random, []string{" ", " ", " ", "\t", "  "}))
	return pick(random, []string{"", "", "ipvsadm ", " ", "# "}) + line + pick(random, []string{"\n", "\n", " \n", "\r\n", "\n\n"})
}

// randomConnections returns connections in no order.
func randomConnections(random *rand.Rand) []lvs.Connection {
	out := make([]lvs.Connection, 40)
	for i := range out {
		ipv6 := random.IntN(2) == 0
		endpoint := func(ipv6 bool) netip.AddrPort {
			return netip.AddrPortFrom(randomAddress(random, ipv6), pick(random, listedPorts))
		}
		out[i] = lvs.Connection{
			Protocol: pick(random, []lvs.Protocol{lvs.TCP, lvs.UDP, lvs.SCTP}),
			Client:   endpoint(ipv6),
			Virtual:  endpoint(ipv6),
			Server:   endpoint(ipv6 != (random.IntN(4) == 0)),
			State:    lvs.ConnectionState(random.IntN(int(lvs.StateUDP) + 1)),
			Expires:  time.Duration(random.Int64N(int64(1e6*time.Second)) >> random.IntN(20)),
		}
	}
	return out
}

// randomRates returns rates that the 32 bits of ipvsadm hold.
func randomRates(random *rand.Rand) lvs.Rates {
	r := lvs.Rates(randomCounters(random))
	r.InBytes, r.OutBytes = r.InBytes&0xffffffff, r.OutBytes&0xffffffff
	return r
}

// randomCounter returns a counter of any size below 2^bits. ipvsadm shows
// connections and packets modulo 2^32, where fairlead does not.
func randomCounter(random *rand.Rand, bits int) uint64 {
	return random.Uint64() >> (64 - bits) >> random.IntN(bits)
}

func randomCounters(random *rand.Rand) lvs.Counters {
	return lvs.Counters{
		Connections: randomCounter(random, 32),
		InPackets:   randomCounter(random, 32), OutPackets: randomCounter(random, 32),
		InBytes: randomCounter(random, 63), OutBytes: randomCounter(random, 63),
	}
}

var (
	ipv4Hosts = []string{"192.0.2.10", "192.0.2.9", "198.51.100.11", "198.51.100.12", "10.0.0.1", "127.0.0.1", "128.0.0.1", "203.0.113.200"}
	ipv6Hosts = []string{
		"2001:db8::1", "2001:db8::2", "2001:db8:1::", "::1.2.3.4", "::ffff:192.0.2.1", "2001:db8:0:0:1::1", "2001:db8::8000:0:0:1", "fd00::1", "::1",
		"2001:db8:1111:2222:3333:4444:5555:6666", "2001:db8:ffff::ffff", "2001:db8:0:1::ff",
	}
	listedPorts = []uint16{0, 53, 80, 443, 5060, 8080, 65535}
)

func randomAddress(random *rand.Rand, ipv6 bool) netip.Addr {
	if ipv6 {
		return netip.MustParseAddr(pick(random, ipv6Hosts))
	}
	return netip.MustParseAddr(pick(random, ipv4Hosts))
}

// randomServices returns a table with no service or server twice.
func randomServices(random *rand.Rand) []lvs.ServiceStatus {
	var out []lvs.ServiceStatus
	seen := map[lvs.ServiceKey]bool{}
	for range 25 {
		ipv6 := random.IntN(2) == 0
		key := lvs.ServiceKey{
			Protocol: pick(random, []lvs.Protocol{lvs.TCP, lvs.UDP, lvs.SCTP}),
			Address:  randomAddress(random, ipv6),
			Port:     pick(random, listedPorts),
		}
		if random.IntN(4) == 0 {
			key = lvs.MarkKey(uint32(1+random.IntN(9)), ipv6)
		}
		if seen[key] {
			continue
		}
		seen[key] = true
		out = append(out, randomService(random, key))
	}
	return out
}

func randomService(random *rand.Rand, key lvs.ServiceKey) lvs.ServiceStatus {
	svc := lvs.ServiceStatus{
		Service: lvs.Service{
			ServiceKey:     key,
			Scheduler:      pick(random, lvs.Schedulers()),
			SchedulerFlags: lvs.SchedulerFlags(random.IntN(8) * random.IntN(2)),
			OnePacket:      random.IntN(3) == 0,
		},
		Counters: randomCounters(random),
		Rates:    randomRates(random),
	}
	if svc.Scheduler == lvs.SourceHashing || svc.Scheduler == lvs.MaglevHashing {
		svc.SchedulerFlags &= lvs.Flag1 | lvs.Flag2 // see TestSaveMends
	}
	if random.IntN(3) == 0 {
		svc.PersistenceEngine = "sip"
	}
	if random.IntN(2) == 0 {
		svc.PersistenceTimeout = time.Duration(1+random.IntN(maxTimeout)) * time.Second
		svc.PersistenceMask = lvs.FullPersistenceMask(key.Address)
		if random.IntN(2) == 0 {
			svc.PersistenceMask = uint32(1 + random.IntN(128))
		}
	}
	seen := map[lvs.RealServerKey]bool{}
	for range random.IntN(6) {
		rs := lvs.RealServerStatus{
			RealServer: lvs.RealServer{
				RealServerKey:  lvs.RealServerKey{Address: randomAddress(random, random.IntN(2) == 0), Port: pick(random, listedPorts)},
				Method:         lvs.ForwardingMethod(random.IntN(4)),
				Weight:         random.Uint32() >> 1 >> random.IntN(32),
				UpperThreshold: random.Uint32() >> random.IntN(32),
				LowerThreshold: random.Uint32() >> random.IntN(32),
			},
			Active: random.Uint32() >> random.IntN(32), Inactive: random.Uint32() >> random.IntN(32), Persistent: random.Uint32() >> random.IntN(32),
			Counters: randomCounters(random),
			Rates:    randomRates(random),
		}
		if rs.Method == lvs.Tunnelling {
			rs.Tunnel = lvs.Tunnel{
				Type: lvs.TunnelType(random.IntN(3)), Port: uint16(random.Uint32()), Checksum: lvs.TunnelChecksum(random.IntN(3)),
			}
		}
		if !seen[rs.RealServerKey] {
			seen[rs.RealServerKey] = true
			svc.Servers = append(svc.Servers, rs)
		}
	}
	return svc
}
