package savefile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// The JSON of a state: programs rely on its names.

type fileJSON struct {
	Version        int              `json:"version"`
	Sysctls        map[string]int32 `json:"sysctls"`
	Peers          []string         `json:"peers"`
	Marks          []string         `json:"marks"`           // as the text has them
	LocalAddresses []string         `json:"local_addresses"` // the same
	Services       []serviceJSON    `json:"services"`
}

type serviceJSON struct {
	Service            string           `json:"service"`
	Scheduler          string           `json:"scheduler"`
	Flags              []string         `json:"flags,omitempty"`
	PersistenceSeconds uint32           `json:"persistence_seconds,omitempty"`
	PersistenceMask    string           `json:"persistence_mask,omitempty"`
	PersistenceEngine  string           `json:"persistence_engine,omitempty"`
	OnePacket          bool             `json:"one_packet,omitempty"`
	Sysctls            map[string]int32 `json:"sysctls,omitempty"`
	Servers            []serverJSON     `json:"servers"`
}

type serverJSON struct {
	Address        string      `json:"address"`
	Method         string      `json:"method"`
	Weight         uint32      `json:"weight"`
	UpperThreshold uint32      `json:"upper_threshold,omitempty"`
	LowerThreshold uint32      `json:"lower_threshold,omitempty"`
	Tunnel         *tunnelJSON `json:"tunnel,omitempty"`
	TOA            bool        `json:"toa,omitempty"`
}

type tunnelJSON struct {
	Type     string `json:"type"`
	Port     uint16 `json:"port"`
	Checksum string `json:"checksum"`
}

// WriteJSON writes a state as JSON; [Read] reads it.
func WriteJSON(w io.Writer, state lvs.State) error {
	file := fileJSON{Version: Version, Sysctls: settingsJSON(state.Sysctls), Peers: []string{}, Marks: []string{}, LocalAddresses: []string{}, Services: []serviceJSON{}}
	for _, addr := range state.Peers {
		file.Peers = append(file.Peers, addr.String())
	}
	for _, rule := range state.Marks {
		file.Marks = append(file.Marks, fmt.Sprintf("%d%s", rule.Mark, markWords(rule)))
	}
	for _, local := range state.LocalAddresses {
		file.LocalAddresses = append(file.LocalAddresses, localWords(local))
	}
	for _, s := range state.Services {
		file.Services = append(file.Services, newServiceJSON(s))
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(file)
}

func settingsJSON(settings []lvs.SysctlSetting) map[string]int32 {
	values := map[string]int32{}
	for _, s := range settings {
		values[s.Name] = s.Value
	}
	return values
}

func newServiceJSON(s lvs.ServiceState) serviceJSON {
	service := serviceJSON{
		Service: s.Text(), Scheduler: string(s.Scheduler), Flags: s.Scheduler.FlagNames(s.SchedulerFlags),
		PersistenceSeconds: uint32(s.PersistenceTimeout / time.Second), PersistenceEngine: s.PersistenceEngine,
		OnePacket: s.OnePacket, Sysctls: settingsJSON(s.Sysctls), Servers: []serverJSON{},
	}
	if s.PersistenceTimeout != 0 {
		service.PersistenceMask = maskWord(s.Service)
	}
	for _, r := range s.Servers {
		server := serverJSON{
			Address: r.RealServerKey.String(), Method: methodWords[r.Method], Weight: r.Weight,
			UpperThreshold: r.UpperThreshold, LowerThreshold: r.LowerThreshold, TOA: r.TOA,
		}
		if r.Method == lvs.Tunnelling {
			server.Tunnel = &tunnelJSON{tunnelWords[r.Tunnel.Type], r.Tunnel.Port, checksumWords[r.Tunnel.Checksum]}
		}
		service.Servers = append(service.Servers, server)
	}
	return service
}

func readJSON(data []byte) (File, error) {
	var file fileJSON
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&file); err != nil {
		line := 1 + bytes.Count(data[:decoder.InputOffset()], []byte("\n"))
		return File{}, fmt.Errorf("JSON, near line %d: %w", line, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return File{}, errors.New("JSON: there is something after the state")
	}
	if file.Version != Version {
		return File{}, fmt.Errorf("version %d: this fairlead reads version %d: restore it with the one that saved it", file.Version, Version)
	}
	state, err := file.state()
	return File{State: state}, err
}

func (file fileJSON) state() (state lvs.State, err error) {
	if state.Sysctls, err = settingsOf("sysctls", file.Sysctls); err != nil {
		return lvs.State{}, err
	}
	for i, word := range file.Peers {
		addr, err := parsePeer(word)
		if err != nil {
			return lvs.State{}, fmt.Errorf("peers[%d]: %w", i, err)
		}
		state.Peers = append(state.Peers, addr)
	}
	for i, text := range file.Marks {
		rule, err := parseMark(markFields(text))
		if err != nil {
			return lvs.State{}, fmt.Errorf("marks[%d]: %w", i, err)
		}
		state.Marks = append(state.Marks, rule)
	}
	for i, text := range file.LocalAddresses {
		local, err := parseLocal(markFields(text))
		if err != nil {
			return lvs.State{}, fmt.Errorf("local_addresses[%d]: %w", i, err)
		}
		state.LocalAddresses = append(state.LocalAddresses, local)
	}
	for i, s := range file.Services {
		at := fmt.Sprintf("services[%d]", i)
		service, err := s.service()
		if err != nil {
			return lvs.State{}, fmt.Errorf("%s: %w", at, err)
		}
		full := lvs.ServiceState{Service: service}
		if full.Sysctls, err = settingsOf(at+".sysctls", s.Sysctls); err != nil {
			return lvs.State{}, err
		}
		for j, r := range s.Servers {
			server, err := r.server()
			if err != nil {
				return lvs.State{}, fmt.Errorf("%s.servers[%d]: %w", at, j, err)
			}
			full.Servers = append(full.Servers, server)
		}
		state.Services = append(state.Services, full)
	}
	return state, nil
}

// settingsOf returns values in the order in which sysctls are listed.
func settingsOf(at string, values map[string]int32) ([]lvs.SysctlSetting, error) {
	for name := range values {
		if _, err := lvs.FindSysctl(name); err != nil {
			return nil, fmt.Errorf("%s: %w", at, err)
		}
	}
	var settings []lvs.SysctlSetting
	for _, s := range lvs.Sysctls() {
		if value, ok := values[s.Name]; ok {
			settings = append(settings, lvs.SysctlSetting{Name: s.Name, Value: value})
		}
	}
	return settings, nil
}

func (s serviceJSON) service() (lvs.Service, error) {
	key, err := lvs.ParseServiceKey(s.Service)
	if err != nil {
		return lvs.Service{}, err
	}
	scheduler, err := parseScheduler(s.Scheduler)
	if err == nil && s.PersistenceEngine != "" {
		_, err = parseEngine(s.PersistenceEngine)
	}
	if err != nil {
		return lvs.Service{}, err
	}
	service := lvs.Service{
		ServiceKey: key, Scheduler: scheduler, PersistenceMask: lvs.FullPersistenceMask(key.Address),
		PersistenceTimeout: time.Duration(s.PersistenceSeconds) * time.Second, PersistenceEngine: s.PersistenceEngine,
		OnePacket: s.OnePacket,
	}
	if s.PersistenceSeconds > lvs.MaxTimeoutSeconds {
		return lvs.Service{}, fmt.Errorf("persistence_seconds %d: want 0 to %d", s.PersistenceSeconds, lvs.MaxTimeoutSeconds)
	}
	if s.PersistenceMask != "" {
		if s.PersistenceSeconds == 0 {
			return lvs.Service{}, errors.New("persistence_mask: want persistence_seconds too: no other service has one")
		}
		if service.PersistenceMask, err = parseMask(key, s.PersistenceMask); err != nil {
			return lvs.Service{}, err
		}
	}
	service.SchedulerFlags, err = service.Scheduler.ParseFlags(s.Flags)
	return service, err
}

func (r serverJSON) server() (lvs.RealServer, error) {
	key, err := parseServerKey(r.Address)
	if err != nil {
		return lvs.RealServer{}, err
	}
	method, ok := find(methodWords, r.Method)
	if !ok {
		return lvs.RealServer{}, fmt.Errorf("method %q: want route, masq, tunnel or fullnat", r.Method)
	}
	if r.Weight > math.MaxInt32 {
		return lvs.RealServer{}, fmt.Errorf("weight %d: want 0 to %d", r.Weight, math.MaxInt32)
	}
	server := lvs.RealServer{
		RealServerKey: key, Method: method, Weight: r.Weight,
		UpperThreshold: r.UpperThreshold, LowerThreshold: r.LowerThreshold, TOA: r.TOA,
	}
	if r.TOA && method != lvs.FullNAT {
		return lvs.RealServer{}, errors.New("toa: want it with method fullnat")
	}
	if (r.Tunnel != nil) != (method == lvs.Tunnelling) {
		return lvs.RealServer{}, errors.New("tunnel: want it with method tunnel, and only there")
	}
	if r.Tunnel != nil {
		server.Tunnel, err = r.Tunnel.tunnel()
	}
	return server, err
}

func (t tunnelJSON) tunnel() (lvs.Tunnel, error) {
	kind, ok := find(tunnelWords, t.Type)
	if !ok {
		return lvs.Tunnel{}, fmt.Errorf("tunnel type %q: want ipip, gue or gre", t.Type)
	}
	checksum, ok := find(checksumWords, t.Checksum)
	if !ok {
		return lvs.Tunnel{}, fmt.Errorf("tunnel checksum %q: want none, full or remote", t.Checksum)
	}
	return lvs.Tunnel{Type: kind, Port: t.Port, Checksum: checksum}, nil
}
