package scenario

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Play plays a scenario from its first step on a machine that is as good as new,
// and returns a copy of it with the machine's answers. After an error, the answers
// of the step that it names, and of those behind, are missing.
func Play(m Machine, s *Scenario) (*Scenario, error) {
	played := s.Clone()
	for i := range played.Steps {
		played.Steps[i].Answer = nil
	}
	p := player{machine: m}
	for i := range played.Steps {
		step := &played.Steps[i]
		answer, err := p.play(step)
		if err != nil {
			return played, fmt.Errorf("%s: step %d, %s: %w", s.Name, i+1, step.head(), err)
		}
		step.Answer = answer
	}
	return played, nil
}

// head returns the step's line, not all of a long one.
func (s *Step) head() string {
	line, _, _ := strings.Cut(s.String(), "\n")
	return line
}

type player struct {
	machine  Machine
	protocol string
	vip      netip.AddrPort
}

func (p *player) play(s *Step) (answer []string, err error) {
	switch s.Verb {
	case To:
		p.protocol = s.Words[0]
		p.vip, err = netip.ParseAddrPort(s.Words[1])
	case Ipvsadm:
		return p.ipvsadm(s)
	case Sysctl:
		name, value, _ := strings.Cut(s.Words[0], "=")
		err = p.machine.Sysctl(name, value)
	case Mark:
		var mark uint64
		if mark, err = strconv.ParseUint(s.Words[0], 10, 32); err == nil {
			err = p.machine.SetMark(uint32(mark))
		}
	case MTU:
		var mtu int
		if mtu, err = strconv.Atoi(s.Words[1]); err == nil {
			err = p.machine.SetMTU(s.Words[0], mtu)
		}
	case Sleep:
		var t time.Duration
		if t, err = s.Slept(); err == nil {
			err = p.machine.Sleep(t)
		}
	case Send:
		return p.send(s)
	case Walk:
		return p.walk(s)
	case Frame:
		return p.frame(s)
	case Servers:
		return p.servers()
	case Connections:
		return p.connections()
	case Keepalived:
		err = p.keepalived(s)
	default:
		err = fmt.Errorf("%q is none of the verbs", s.Verb)
	}
	return nil, err
}

// Slept returns the time that passes in a step.
func (s *Step) Slept() (time.Duration, error) {
	if s.Verb != Sleep {
		return 0, nil
	}
	n, err := strconv.ParseFloat(s.Words[0], 64)
	return time.Duration(math.Round(n * float64(time.Second))), err
}

func (p *player) ipvsadm(s *Step) ([]string, error) {
	stdin := strings.Join(s.Input, "\n")
	if s.Input != nil {
		stdin += "\n"
	}
	result, err := p.machine.Ipvsadm(s.Words, stdin)
	if err != nil {
		return nil, err
	}
	answer := marked(printed, inOrder(s.Words, result.Stdout))
	answer = append(answer, marked(warned, result.Stderr)...)
	if result.Status != 0 {
		answer = append(answer, fmt.Sprint(answered, "exit ", result.Status))
	}
	return answer, nil
}

// Printed returns the answer of a command that prints a text, and nothing else.
func Printed(text string) []string { return marked(printed, text) }

func marked(mark, text string) (lines []string) {
	for line := range strings.Lines(text) {
		line, ended := strings.CutSuffix(line, "\n")
		if line == "" {
			lines = append(lines, strings.TrimRight(mark, " "))
		} else {
			lines = append(lines, mark+line)
		}
		if !ended {
			lines = append(lines, answered+"no newline")
		}
	}
	return lines
}

// expiry is the column of ipvsadm -Lc that a row is sorted by last: the calls of a client have rows that
// are the same but for that.
var expiry = regexp.MustCompile(`^(\S+ +)\S+ `)

// inOrder sorts what the kernel has in the order of a hash, whose key is another one at each
// boot: connections, and services that ipvsadm was told not to sort. The real servers of a
// service keep their order.
func inOrder(words []string, stdout string) string {
	lines := slices.Collect(strings.Lines(stdout))
	switch {
	case listsConnections(words):
		const headings = 2
		slices.SortFunc(lines[min(headings, len(lines)):], func(a, b string) int {
			return cmp.Or(cmp.Compare(expiry.ReplaceAllString(a, "$1"), expiry.ReplaceAllString(b, "$1")), cmp.Compare(a, b))
		})
	case slices.Contains(words, "--nosort"):
		const headings = 3
		services := [][]string{}
		for i, line := range lines {
			if i < headings || !strings.HasPrefix(line, "  ->") || len(services) == 0 {
				services = append(services, []string{line})
			} else {
				services[len(services)-1] = append(services[len(services)-1], line)
			}
		}
		slices.SortFunc(services[min(headings, len(services)):], slices.Compare[[]string])
		lines = slices.Concat(services...)
	}
	return strings.Join(lines, "")
}

func listsConnections(words []string) bool {
	return slices.ContainsFunc(words, func(word string) bool {
		return word == "--connection" || len(word) > 1 && word[0] == '-' && word[1] != '-' && strings.Contains(word, "c")
	}) && len(words) > 0 && (strings.HasPrefix(words[0], "-L") || strings.HasPrefix(words[0], "-l") || words[0] == "--list")
}

func (p *player) keepalived(s *Step) error {
	balancer, ok := p.machine.(Balancer)
	if !ok {
		return errors.New("it is not of this machine")
	}
	if len(s.Words) > 0 {
		return balancer.Keepalived(s.Words[0])
	}
	return balancer.KeepalivedOf(strings.Join(s.Input, "\n") + "\n")
}

func (p *player) send(s *Step) ([]string, error) {
	outcomes := make([]byte, 0, len(s.Words))
	for _, text := range s.Words {
		packet, on, err := parsePacket(text, p.protocol, p.vip)
		if err != nil {
			return nil, fmt.Errorf("packet %s: %w", text, err)
		}
		frame, sent, err := p.sendPacket(packet, on)
		if err != nil {
			return nil, fmt.Errorf("packet %s: %w", text, err)
		}
		outcomes = append(outcomes, sent.outcome(frame, on))
	}
	return []string{answered + string(outcomes)}, nil
}

func (p *player) sendPacket(packet packet, on string) ([]byte, Sent, error) {
	frame, err := packet.frame(on)
	if err != nil {
		return nil, Sent{}, err
	}
	sent, err := p.machine.Send(frame, on)
	return frame, sent, err
}

// walkServer is who answers in walks.
var walkServer = netip.MustParseAddr("198.51.100.11")

// walk sends each sequence as a connection of its own, and reads half a second
// later what has become of it.
func (p *player) walk(s *Step) ([]string, error) {
	clientOf := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(1 + i%250)}), uint16(2000+i/250))
	}
	for i, sequence := range s.Words {
		for what := range strings.SplitSeq(sequence, ",") {
			sent := packet{protocol: p.protocol, from: clientOf(i), to: p.vip, what: what, payload: -1}
			on := "cl"
			if answer, ok := strings.CutPrefix(what, "<"); ok {
				on = "rs"
				sent.from, sent.to, sent.what = netip.AddrPortFrom(walkServer, p.vip.Port()), clientOf(i), answer
			}
			if p.protocol == "udp" {
				sent.what = ""
			}
			if _, _, err := p.sendPacket(sent, on); err != nil {
				return nil, fmt.Errorf("packet %s of sequence %s: %w", what, sequence, err)
			}
		}
	}
	if err := p.machine.Sleep(500 * time.Millisecond); err != nil {
		return nil, err
	}
	table, err := p.machine.Connections()
	if err != nil {
		return nil, err
	}
	states := map[netip.AddrPort]string{}
	for _, c := range table {
		states[c.Client] = c.stateAndSeconds()
	}
	var lines []string
	for i, sequence := range s.Words {
		lines = append(lines, answered+sequence+" "+cmp.Or(states[clientOf(i)], "-"))
	}
	return lines, nil
}

func (p *player) frame(s *Step) ([]string, error) {
	if len(s.Input) != 1 {
		return nil, fmt.Errorf("want one frame, there are %d", len(s.Input))
	}
	in, err := hex.DecodeString(s.Input[0])
	if err != nil {
		return nil, err
	}
	sent, err := p.machine.Send(in, s.Words[0])
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, out := range sent.Frames {
		frame := bytes.Clone(out.Frame)
		maskRandom(frame, in)
		lines = append(lines, fmt.Sprintf("%s%s %x", answered, out.On, frame))
	}
	switch {
	case sent.Passed == nil:
	case bytes.Equal(sent.Passed, in):
		lines = append(lines, passedOn)
	default:
		lines = append(lines, fmt.Sprintf("%s as %x", passedOn, sent.Passed))
	}
	return lines, nil
}

// passedOn is the answer of a machine without a stack of its own.
const passedOn = answered + "passed on"

func (p *player) servers() ([]string, error) {
	services, err := p.machine.Services()
	if err != nil {
		return nil, err
	}
	slices.SortFunc(services, func(a, b Service) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(fmt.Sprint(a.Servers), fmt.Sprint(b.Servers)))
	})
	var lines []string
	for _, svc := range services {
		if len(services) > 1 {
			lines = append(lines, answered+"@"+svc.Name)
		}
		for _, rs := range svc.Servers {
			letter, err := Letter(rs.Address)
			if err != nil {
				return nil, err
			}
			lines = append(lines, fmt.Sprintf("%s%c %d %d %d", answered, letter, rs.Weight, rs.Active, rs.Inactive))
		}
	}
	return lines, nil
}

func (p *player) connections() ([]string, error) {
	table, err := p.machine.Connections()
	if err != nil {
		return nil, err
	}
	slices.SortFunc(table, func(a, b Connection) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), a.Client.Compare(b.Client),
			a.Virtual.Compare(b.Virtual), a.Server.Compare(b.Server), cmp.Compare(a.Engine, b.Engine))
	})
	var lines []string
	for _, c := range table {
		line := fmt.Sprintf("%s%s %s %s %s %s %s", answered, c.Protocol, c.Client, c.Virtual, c.Server, c.stateAndSeconds(), c.Engine)
		lines = append(lines, strings.TrimRight(line, " "))
	}
	return lines, nil
}

// stateAndSeconds rounds the seconds down.
func (c *Connection) stateAndSeconds() string {
	return fmt.Sprintf("%s %d", c.State, c.Expires/time.Second)
}
