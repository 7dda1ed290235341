package savefile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// header begins the first line of the text.
const header = "fairlead-save"

// maxLine bounds a line of the text, in bytes.
const maxLine = 64 << 10

// A File is a state that was read, and where each item of it stands.
type File struct {
	lvs.State
	lines map[string]int // of the text, by item
}

// Where says where in the file the item stands that err refuses: "line 7", or, of
// JSON, "services[0]"; "" if err is not about an item.
func (f File) Where(err error) string {
	var item *lvs.ItemError
	if !errors.As(err, &item) {
		return ""
	}
	if line, ok := f.lines[item.Item]; ok {
		return fmt.Sprintf("line %d", line)
	}
	return item.Item
}

// Read reads a state in the text that [Write] writes, or in the JSON of [WriteJSON].
// Its errors say where, what, and what to do. What only a director knows (whether it
// has a scheduler, what address is its own) is for it to refuse.
func Read(from io.Reader) (File, error) {
	data, err := io.ReadAll(from)
	if err != nil {
		return File{}, fmt.Errorf("read the state: %w", err)
	}
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		return readJSON(data)
	}
	r := reader{file: File{lines: map[string]int{}}}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		r.line++
		words := strings.Fields(lines.Text())
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if err := r.take(words); err != nil {
			return File{}, fmt.Errorf("line %d: %w", r.line, err)
		}
	}
	if err := lines.Err(); err != nil {
		return File{}, fmt.Errorf("line %d: %w", r.line+1, err)
	}
	if !r.begun {
		return File{}, errors.New("it is empty: want what fairlead save prints, beginning with " + headerLine())
	}
	return r.file, nil
}

func headerLine() string { return fmt.Sprintf("%s %d", header, Version) }

type reader struct {
	file  File
	line  int
	begun bool // the header was read
}

// take reads one line.
func (r *reader) take(words []string) error {
	if !r.begun {
		r.begun = true
		return checkHeader(words)
	}
	kind, rest := words[0], words[1:]
	read, ok := map[string]func([]string) error{
		"sysctl": r.sysctl, "peer": r.peer, "mark": r.mark, "local-address": r.local, "service": r.service, "set": r.set, "server": r.server,
	}[kind]
	if !ok {
		return fmt.Errorf("%q: want a line that begins with sysctl, peer, mark, local-address, service, set or server", kind)
	}
	if len(rest) == 0 {
		return fmt.Errorf("%s: something is missing after it: see fairlead save --help", kind)
	}
	return read(rest)
}

func checkHeader(words []string) error {
	switch {
	case len(words) == 2 && words[0] == header && words[1] == fmt.Sprint(Version):
		return nil
	case words[0] == header:
		return fmt.Errorf("%s: this fairlead reads version %d: restore it with the one that saved it", strings.Join(words, " "), Version)
	case strings.HasPrefix(words[0], "-"):
		return fmt.Errorf("%s: want %s first; what ipvsadm-save printed is restored by fairlead ipvsadm-restore", words[0], headerLine())
	}
	return fmt.Errorf("%q: want %s first", strings.Join(words, " "), headerLine())
}

// stands notes that an item stands in this line.
func (r *reader) stands(format string, args ...any) {
	r.file.lines[fmt.Sprintf(format, args...)] = r.line
}

func (r *reader) sysctl(words []string) error {
	setting, err := parseSetting(words)
	if err != nil {
		return err
	}
	r.stands("sysctls[%d]", len(r.file.Sysctls))
	r.file.Sysctls = append(r.file.Sysctls, setting)
	return nil
}

func parseSetting(words []string) (lvs.SysctlSetting, error) {
	if len(words) != 1 || !strings.Contains(words[0], "=") {
		return lvs.SysctlSetting{}, fmt.Errorf("%q: want NAME=VALUE, like timeout_established=3600", strings.Join(words, " "))
	}
	name, value, _ := strings.Cut(words[0], "=")
	change, err := lvs.ParseSysctlChange(name, value)
	if err == nil && change.Reset {
		err = fmt.Errorf("%s: want a number; what is not named has its default", words[0])
	}
	return lvs.SysctlSetting{Name: name, Value: change.Value}, err
}

func (r *reader) peer(words []string) error {
	if len(words) != 1 {
		return fmt.Errorf("peer %s: want one address a line", strings.Join(words, " "))
	}
	addr, err := parsePeer(words[0])
	r.stands("peers[%d]", len(r.file.Peers))
	r.file.Peers = append(r.file.Peers, addr)
	return err
}

func (r *reader) mark(words []string) error {
	rule, err := parseMark(words)
	r.stands("marks[%d]", len(r.file.Marks))
	r.file.Marks = append(r.file.Marks, rule)
	return err
}

func (r *reader) local(words []string) error {
	local, err := parseLocal(words)
	r.stands("local_addresses[%d]", len(r.file.LocalAddresses))
	r.file.LocalAddresses = append(r.file.LocalAddresses, local)
	return err
}

func (r *reader) service(words []string) error {
	service, err := parseService(words)
	r.stands("services[%d]", len(r.file.Services))
	r.file.Services = append(r.file.Services, lvs.ServiceState{Service: service})
	return err
}

// above returns the service that a line is of.
func (r *reader) above(what string) (*lvs.ServiceState, int, error) {
	last := len(r.file.Services) - 1
	if last < 0 {
		return nil, 0, fmt.Errorf("%s: want a service line above it, which it is of", what)
	}
	return &r.file.Services[last], last, nil
}

func (r *reader) set(words []string) error {
	service, at, err := r.above("set")
	if err != nil {
		return fmt.Errorf("%w; the director's own values are written sysctl NAME=VALUE", err)
	}
	setting, err := parseSetting(words)
	r.stands("services[%d].sysctls[%d]", at, len(service.Sysctls))
	service.Sysctls = append(service.Sysctls, setting)
	return err
}

func (r *reader) server(words []string) error {
	service, at, err := r.above("server")
	if err != nil {
		return err
	}
	server, err := parseServer(words)
	r.stands("services[%d].servers[%d]", at, len(service.Servers))
	service.Servers = append(service.Servers, server)
	return err
}
