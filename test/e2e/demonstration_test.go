package e2e

import (
	"encoding/json"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket/pcapgo"
)

// A report is the object of fairlead lab -o json. That it is written down again
// here makes the test notice a change.
type report struct {
	Requests struct {
		Sent     int            `json:"sent"`
		Answered int            `json:"answered"`
		ByServer map[string]int `json:"by_server"`
	} `json:"requests"`
	RepliesThroughDirector *int   `json:"replies_through_director"`
	Journey                []step `json:"journey"`
	Checks                 []struct {
		Name   string `json:"name"`
		OK     bool   `json:"ok"`
		Detail string `json:"detail"`
	} `json:"checks"`
	OK bool `json:"ok"`
}

type step struct {
	Step      int    `json:"step"`
	At        string `json:"at"`
	Direction string `json:"direction"`
	What      string `json:"what"`
	SrcMAC    string `json:"src_mac"`
	SrcHost   string `json:"src_host"`
	DstMAC    string `json:"dst_mac"`
	DstHost   string `json:"dst_host"`
	SrcIP     string `json:"src_ip"`
	DstIP     string `json:"dst_ip"`
	SrcPort   uint16 `json:"src_port"`
	DstPort   uint16 `json:"dst_port"`
}

func mustReport(t *testing.T, args ...string) report {
	t.Helper()
	out := mustRun(t, labDirectory(t), append([]string{"lab", "-o", "json"}, args...)...)
	decoder := json.NewDecoder(strings.NewReader(out))
	decoder.DisallowUnknownFields()
	var r report
	if err := decoder.Decode(&r); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := decoder.Token(); err != io.EOF {
		t.Errorf("more than one object on standard output: %v", err)
	}
	return r
}

func TestDemonstration(t *testing.T) {
	for _, test := range []struct {
		name string
		args []string
		want map[string]int
		off  float64 // how far from want, as a part of it
	}{
		{"wlc", nil, map[string]int{"rs1": 400, "rs2": 200}, 0.02},
		{"wlc over IPv6", []string{"--family", "6"}, map[string]int{"rs1": 400, "rs2": 200}, 0.02},
		{"wrr", []string{"--scheduler", "wrr"}, map[string]int{"rs1": 400, "rs2": 200}, 0},
		{"wrr over IPv6", []string{"--scheduler", "wrr", "--family", "6"}, map[string]int{"rs1": 400, "rs2": 200}, 0},
		{"rr of three", []string{"--scheduler", "rr", "--servers", "3", "--requests", "90"}, map[string]int{"rs1": 30, "rs2": 30, "rs3": 30}, 0},
		{"one quiesced", []string{"--weights", "1,0,1", "--scheduler", "wrr", "--requests", "20"}, map[string]int{"rs1": 10, "rs2": 0, "rs3": 10}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := mustReport(t, test.args...)
			sent := 0
			for server, want := range test.want {
				sent += want
				if got := r.Requests.ByServer[server]; math.Abs(float64(got-want)) > test.off*float64(want) {
					t.Errorf("%s answered %d, want %d", server, got, want)
				}
			}
			if r.Requests.Sent != sent || r.Requests.Answered != sent || len(r.Requests.ByServer) != len(test.want) {
				t.Errorf("requests: %+v, want %d sent and answered", r.Requests, sent)
			}
			if r.RepliesThroughDirector == nil || *r.RepliesThroughDirector != 0 {
				t.Errorf("replies through the director: %v", r.RepliesThroughDirector)
			}
			if !r.OK || len(r.Checks) < 8 {
				t.Errorf("ok is %v, with %d checks", r.OK, len(r.Checks))
			}
			for _, check := range r.Checks {
				if !check.OK {
					t.Errorf("%s: %s", check.Name, check.Detail)
				}
			}
			checkJourney(t, r.Journey)
		})
	}
}

// Behind a router, the router learns where the VIP is; the real server answers the
// router and not the director.
func TestDemonstrationBehindRouter(t *testing.T) {
	for _, test := range []struct{ family, client, vip, question string }{
		{"4", "198.51.100.1", "192.0.2.100", "ARP request"},
		{"6", "2001:db8:1::1", "2001:db8::100", "neighbor solicitation"},
	} {
		r := mustReport(t, "--topology", "routed", "--family", test.family, "--scheduler", "wrr", "--requests", "60")
		for _, check := range r.Checks {
			if !check.OK {
				t.Errorf("IPv%s: %s: %s", test.family, check.Name, check.Detail)
			}
		}
		if r.RepliesThroughDirector == nil || *r.RepliesThroughDirector != 0 || r.Requests.ByServer["rs1"] != 40 || r.Requests.ByServer["rs2"] != 20 {
			t.Errorf("IPv%s: %+v", test.family, r.Requests)
		}
		const inside, outside, director = "02:00:00:00:00:02", "02:00:00:00:02:02", "02:00:00:00:00:10"
		checkOrder(t, r.Journey, []step{
			{At: "client", Direction: "out", What: "SYN", DstMAC: outside, DstHost: "router", SrcIP: test.client, DstIP: test.vip},
			{At: "router", Direction: "out", What: test.question, SrcMAC: inside, SrcHost: "router"},
			{At: "switch", Direction: "in", What: "learns: router is on port router", SrcMAC: inside},
			{At: "router", Direction: "in", SrcMAC: director, SrcHost: "director", SrcIP: test.vip},
			{At: "router", Direction: "out", What: "SYN", SrcMAC: inside, DstMAC: director, SrcIP: test.client, DstIP: test.vip},
			{At: "director", Direction: "out", What: "SYN", SrcMAC: director, SrcIP: test.client, DstIP: test.vip},
			{At: "router", Direction: "in", What: "SYN+ACK", DstMAC: inside, SrcIP: test.vip, DstIP: test.client},
			{At: "client", Direction: "in", What: "SYN+ACK", SrcMAC: outside, SrcHost: "router", SrcIP: test.vip, DstIP: test.client},
		})
	}
}

// checkJourney wants the story of LVS-DR: the client asks for the VIP's MAC
// address and gets the director's; the director changes the MAC addresses of the
// SYN, and only these; the server asks for the client's in its own name, and
// answers it from the VIP without the director.
func checkJourney(t *testing.T, journey []step) {
	t.Helper()
	// Multicast reports of IPv6 may come in between, whatever the family.
	ipv6 := slices.ContainsFunc(journey, func(s step) bool { return s.What == "SYN" && strings.Contains(s.SrcIP, ":") })
	vip, client, question, answer := "192.0.2.100", "192.0.2.1", "ARP request", "ARP reply"
	if ipv6 {
		vip, client, question, answer = "2001:db8::100", "2001:db8::1", "neighbor solicitation", "neighbor advertisement"
	}
	const clientMAC, directorMAC = "02:00:00:00:00:01", "02:00:00:00:00:10"
	server, serverMAC := "", ""
	for i, s := range journey {
		if s.Step != i+1 {
			t.Errorf("step %d has number %d", i+1, s.Step)
		}
		if s.What == "SYN" && s.At != "client" && s.At != "director" {
			server, serverMAC = s.At, s.DstMAC
		}
	}
	if server == "" {
		t.Fatalf("no server got the SYN: %+v", journey)
	}
	checkOrder(t, journey, []step{
		{At: "client", Direction: "out", What: question, SrcMAC: clientMAC, SrcHost: "client", SrcIP: client},
		{At: "switch", Direction: "in", What: "learns: client is on port client", SrcMAC: clientMAC, SrcHost: "client", SrcIP: client},
		{At: "director", Direction: "out", What: answer, SrcMAC: directorMAC, SrcHost: "director", DstMAC: clientMAC, DstHost: "client", SrcIP: vip, DstIP: client},
		{At: "client", Direction: "out", What: "SYN", SrcMAC: clientMAC, SrcHost: "client", DstMAC: directorMAC, DstHost: "director", SrcIP: client, DstIP: vip},
		{At: "director", Direction: "in", What: "SYN", SrcMAC: clientMAC, SrcHost: "client", DstMAC: directorMAC, DstHost: "director", SrcIP: client, DstIP: vip},
		{At: "director", Direction: "out", What: "SYN", SrcMAC: directorMAC, SrcHost: "director", DstMAC: serverMAC, DstHost: server, SrcIP: client, DstIP: vip},
		{At: server, Direction: "in", What: "SYN", SrcMAC: directorMAC, SrcHost: "director", DstMAC: serverMAC, DstHost: server, SrcIP: client, DstIP: vip},
		{At: server, Direction: "out", What: question, SrcMAC: serverMAC, SrcHost: server},
		{At: server, Direction: "out", What: "SYN+ACK", SrcMAC: serverMAC, SrcHost: server, DstMAC: clientMAC, DstHost: "client", SrcIP: vip, DstIP: client},
		{At: "client", Direction: "in", What: "SYN+ACK", SrcMAC: serverMAC, SrcHost: server, DstMAC: clientMAC, DstHost: "client", SrcIP: vip, DstIP: client},
		{At: "client", Direction: "out", What: "ACK", SrcMAC: clientMAC, SrcHost: "client", DstMAC: directorMAC, DstHost: "director", SrcIP: client, DstIP: vip},
	})
}

// checkOrder wants the steps in the journey, in this order, among others.
func checkOrder(t *testing.T, journey, steps []step) {
	t.Helper()
	at := 0
	for _, want := range steps {
		found := false
		for !found && at < len(journey) {
			found = matches(journey[at], want)
			at++
		}
		if !found {
			t.Fatalf("the journey has not, in this order, %+v:\n%+v", want, journey)
		}
	}
}

// matches compares what want says, step number apart.
func matches(got, want step) bool {
	for _, pair := range [][2]string{
		{got.At, want.At}, {got.Direction, want.Direction}, {got.What, want.What}, {got.SrcMAC, want.SrcMAC}, {got.SrcHost, want.SrcHost},
		{got.DstMAC, want.DstMAC}, {got.DstHost, want.DstHost}, {got.SrcIP, want.SrcIP}, {got.DstIP, want.DstIP},
	} {
		if pair[1] != "" && pair[0] != pair[1] {
			return false
		}
	}
	return (want.SrcPort == 0 || want.SrcPort == got.SrcPort) && (want.DstPort == 0 || want.DstPort == got.DstPort)
}

// What can't be shown is told in one line, and leaves nothing.
func TestDemonstrationRefused(t *testing.T) {
	directory := labDirectory(t)
	for _, args := range [][]string{
		{"--scheduler", "nonsense"},
		{"--requests", "0"},
		{"--family", "5"},
		{"--servers", "81"},
		{"--weights", "1,2", "--servers", "3"},
		{"--weights", "1,x"},
		{"--pcap", "/nowhere/lab.pcapng"},
		{"--name", "../lab"},
		{"-o", "xml"},
		{"nonsense"},
	} {
		c := newCommand(t, directory, append([]string{"lab"}, args...)...)
		status := exitStatus(t, c.Run())
		lines := strings.Split(strings.TrimSpace(c.stderr.String()), "\n")
		if status != 1 || c.stdout.Len() > 0 || !strings.HasPrefix(lines[len(lines)-1], "fairlead: ") {
			t.Errorf("%v: status %d, stdout %q, stderr %s", args, status, &c.stdout, &c.stderr)
		}
	}
}

func TestDemonstrationAsText(t *testing.T) {
	pcap := filepath.Join(t.TempDir(), "lab.pcapng")
	out := mustRun(t, labDirectory(t), "lab", "--requests", "12", "--scheduler", "wrr", "--pcap", pcap)
	for _, want := range []string{
		"ARP request: who has 192.0.2.100?", "*02:00:00:00:00:10 director", "SYN+ACK",
		"IP Virtual Server version", "TCP  192.0.2.100:80 wrr", "-> 192.0.2.11:80", "InPkts",
		"Requests: 12 sent, 12 answered", "Reply packets through the director: 0", "ok    only-macs-changed",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the report has not %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "FAIL") {
		t.Errorf("a check failed:\n%s", out)
	}
	if diff := cmp.Diff([]string{"client", "director", "rs1", "rs2"}, interfacesWithFrames(t, pcap)); diff != "" {
		t.Errorf("interfaces of the pcapng file (-want +got):\n%s", diff)
	}
}

// interfacesWithFrames returns the names of a pcapng file's interfaces, and fails
// the test for one without frames.
func interfacesWithFrames(t *testing.T, path string) []string {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	reader, err := pcapgo.NewNgReader(file, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	frames := map[int]int{}
	for {
		_, info, err := reader.ReadPacketData()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		frames[info.InterfaceIndex]++
	}
	var names []string
	for i := range reader.NInterfaces() {
		device, err := reader.Interface(i)
		if err != nil {
			t.Fatal(err)
		}
		if frames[i] == 0 {
			t.Errorf("no frames of %s", device.Name)
		}
		names = append(names, device.Name)
	}
	return names
}
