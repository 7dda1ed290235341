package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/fairlead-lb/fairlead/internal/journey"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// exampleReports are those of a trace of one packet and an ARP frame.
func exampleReports() []lvs.TraceReport {
	q, e := exampleExplanation()
	at := time.Date(2026, 11, 21, 13, 4, 5, 123456789, time.Local)
	return []lvs.TraceReport{
		{},
		{Packet: &lvs.TracedPacket{
			Explanation: e, Time: at, Protocol: q.Protocol, Client: q.Client, Virtual: q.Virtual, Flags: q.Flags, Omitted: 2,
			InData: []byte{1, 2, 3}, OutData: []byte{4, 5, 6},
		}},
		{Lost: 3},
		{Lost: 3, Packet: &lvs.TracedPacket{
			Explanation: lvs.Explanation{
				Verdict: "pass-not-ip", VerdictKind: "normal", VerdictMeaning: "to the host", Action: "XDP_PASS",
				In: lvs.Frame{InterfaceIndex: 2, InterfaceName: "eth0", Length: 42},
			},
			Time: at, InData: []byte{7},
		}},
		{Lost: 4},
	}
}

func follow(t *testing.T, tally *traceTally) {
	t.Helper()
	for _, report := range exampleReports() {
		if err := tally.visit(report); err != nil {
			t.Fatal(err)
		}
	}
	if err := tally.printer.end(tally.packets, tally.lost); err != nil {
		t.Fatal(err)
	}
}

func TestTraceText(t *testing.T) {
	const want = `#1  13:04:05.123456  TCP 203.0.113.5:40000 -> 192.0.2.100:80, flags S

 1  in          00:00:5e:00:53:01 > 02:00:00:00:00:0a on eth0, 203.0.113.5 > 192.0.2.100, TTL 64, 60 bytes
 2  service     TCP 192.0.2.100:80, scheduler wlc
 3  connection  none yet
 4  real server 192.0.2.11:80, by scheduler: least (active*256+inactive)/weight: 192.0.2.11:80 0/4 beats 192.0.2.12:80 256/2

     REAL SERVER    WEIGHT  ACTIVE  INACTIVE  LOAD   USABLE
     192.0.2.13:80  0       0       3         -      no: quiesced: weight 0
     192.0.2.12:80  2       1       0         256/2  yes
   * 192.0.2.11:80  4       0       0         0/4    yes
     and 2 more

 5  then        SYN_RECV to 192.0.2.11:80, ends in 1m0s, 1 packets, 40 bytes
 6  out         02:00:00:00:00:0a > 02:00:00:00:00:0b on eth0, 203.0.113.5 > 192.0.2.100, TTL 63, 60 bytes
 7  verdict     forward (normal): to a real server; XDP_TX

#2  13:04:05.123456  not TCP, UDP or SCTP, or not read so far

 1  in          00:00:00:00:00:00 > 00:00:00:00:00:00 on eth0, 42 bytes
 2  service     none
 3  connection  none yet
 4  real server none is looked for
 5  then        no connection
 6  out         nothing is sent
 7  verdict     pass-not-ip (normal): to the host; XDP_PASS

`
	const wantErr = `tracing; Ctrl-C ends it
3 lost; they came too fast to be told of, and went their way
4 lost; they came too fast to be told of, and went their way
2 packets traced, 4 lost
`
	var stdout, stderr bytes.Buffer
	follow(t, &traceTally{printer: &traceText{Env{Stdout: &stdout, Stderr: &stderr}}})
	if diff := cmp.Diff(want, stdout.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff(wantErr, stderr.String()); diff != "" {
		t.Errorf("standard error: -want +got:\n%s", diff)
	}
}

func TestTraceJSON(t *testing.T) {
	var stdout bytes.Buffer
	follow(t, &traceTally{printer: &traceJSON{json.NewEncoder(&stdout)}})
	var lines []map[string]any
	for scanner := bufio.NewScanner(&stdout); scanner.Scan(); {
		var line map[string]any
		if err := json.Unmarshal(scanner.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
	}
	if len(lines) != 6 {
		t.Fatalf("%d lines, want 6: %v", len(lines), lines)
	}
	packet := lines[1]
	for name, want := range map[string]any{
		"event": "packet", "number": 1.0, "protocol": "TCP", "client": "203.0.113.5:40000", "virtual": "192.0.2.100:80",
		"tcp_flags": "S", "verdict": "forward", "omitted_candidates": 2.0, "lost": 0.0,
	} {
		if packet[name] != want {
			t.Errorf("%s is %v, want %v", name, packet[name], want)
		}
	}
	if at, err := time.Parse(time.RFC3339Nano, packet["time"].(string)); err != nil || !at.Equal(exampleReports()[1].Packet.Time) {
		t.Errorf("time %v, %v", packet["time"], err)
	}
	for i, want := range map[int]map[string]any{
		0: {"event": "begin", "lost": 0.0},
		2: {"event": "lost", "lost": 3.0},
		5: {"event": "end", "packets": 2.0, "lost": 4.0},
	} {
		if diff := cmp.Diff(want, lines[i]); diff != "" {
			t.Errorf("line %d (-want +got):\n%s", i, diff)
		}
	}
}

func TestTracePcap(t *testing.T) {
	var file bytes.Buffer
	recorder, err := journey.NewRecorder(&file, []string{"eth0"})
	if err != nil {
		t.Fatal(err)
	}
	follow(t, &traceTally{printer: &traceJSON{json.NewEncoder(io.Discard)}, recorder: recorder})
	ng, err := pcapgo.NewNgReader(&file, pcapgo.NgReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	const forwarded = "forward (normal): to a real server; real server 192.0.2.11:80, by scheduler: " +
		"least (active*256+inactive)/weight: 192.0.2.11:80 0/4 beats 192.0.2.12:80 256/2"
	for _, want := range []struct {
		data    []byte
		length  int
		out     bool
		comment string
	}{
		{[]byte{1, 2, 3}, 60, false, "packet 1 as it came in: " + forwarded},
		{[]byte{4, 5, 6}, 60, true, "packet 1 as it left: " + forwarded},
		{[]byte{7}, 42, false, "packet 2 as it came in: pass-not-ip (normal): to the host"},
	} {
		data, info, options, err := ng.ReadPacketDataWithOptions()
		if err != nil {
			t.Fatal(err)
		}
		out := options.Flags.Direction == pcapgo.NgEpbFlagDirectionOutbound
		if !bytes.Equal(data, want.data) || info.Length != want.length || out != want.out || !cmp.Equal(options.Comments, []string{want.comment}) {
			t.Errorf("read %x of %d bytes, out %t, %q; want %+v", data, info.Length, out, options.Comments, want)
		}
	}
	if _, _, err := ng.ReadPacketData(); !errors.Is(err, io.EOF) {
		t.Errorf("behind the last frame: %v", err)
	}
}

func TestTraceRefusals(t *testing.T) {
	for want, args := range map[string][]string{
		`--protocol icmp: want tcp, udp or sctp`:   {"--protocol", "icmp"},
		`--client "203.0.113": invalid`:            {"--client", "203.0.113"},
		`--service "192.0.2.100:http": invalid`:    {"--service", "192.0.2.100:http"},
		`--for 1µs: want whole milliseconds`:       {"--for", "1us"},
		`--output yaml: want text or json`:         {"-o", "yaml"},
		`director is not reachable`:                {"--run-dir", t.TempDir()},
		`director is not reachable: nobody`:        {"--run-dir", t.TempDir(), "--pcap", t.TempDir() + "/x"},
		`unknown command "192.0.2.100" for "fairl`: {"192.0.2.100"},
	} {
		var stdout, stderr bytes.Buffer
		env := Env{Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr, Getenv: func(string) string { return "" }}
		if status := Main(t.Context(), env, append([]string{"trace"}, args...)); status != 1 || !strings.Contains(stderr.String(), want) {
			t.Errorf("%v: exit status %d, %q; want 1 and %q", args, status, stderr.String(), want)
		}
	}
}
