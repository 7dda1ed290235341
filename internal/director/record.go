package director

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/fairlead-lb/fairlead/internal/dataplane"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// recordName is the file in the run directory that holds what the maps don't: what
// the director was told of real servers that checks and drains have changed, and the
// drains. A director that comes after one that was killed finds there what to go back to.
// It is written before the maps are changed.
const recordName = "servers.json"

// A record is what the file holds.
type record struct {
	Services []serviceRecord `json:"services,omitempty"`
	Drains   []drainRecord   `json:"drains,omitempty"`
}

// A serviceRecord is of a service of which the plane has something else than it was
// told.
type serviceRecord struct {
	Service lvs.ServiceKey      `json:"service"`
	Told    []lvs.RealServer    `json:"told"`
	Down    []lvs.RealServerKey `json:"down,omitempty"`
	Sorry   []lvs.RealServerKey `json:"sorry,omitempty"` // in the plane, but not told
}

// A drainRecord is a drain that goes on.
type drainRecord struct {
	Service  lvs.ServiceKey    `json:"service"`
	Server   lvs.RealServerKey `json:"server"`
	Since    time.Time         `json:"since"`
	Deadline time.Time         `json:"deadline,omitzero"`
	Then     lvs.DrainEnd      `json:"then,omitempty"`
	Initial  uint32            `json:"initial"`
	Ended    bool              `json:"ended,omitempty"`
	Host     bool              `json:"host,omitempty"`
}

// refreshAll lets the plane have what follows from checks and drains for some services.
func (d *Director) refreshAll(keys []lvs.ServiceKey) error {
	if err := d.writeRecord(); err != nil {
		return err
	}
	var errs []error
	for _, key := range keys {
		if err := d.refresh(key); err != nil {
			errs = append(errs, fmt.Errorf("service %s: %w", key, err))
		}
	}
	return errors.Join(append(errs, d.writeRecord())...) // what is as it was told is not recorded any more
}

// describe returns what is to be recorded now.
func (d *Director) describe() record {
	var rec record
	for key, r := range d.rosters {
		want := d.inForce(key, r.told)
		if slices.Equal(want, r.told) && slices.Equal(r.applied, r.told) {
			continue
		}
		s := serviceRecord{Service: key, Told: r.told}
		for _, servers := range [][]lvs.RealServer{want, r.applied} {
			for _, server := range servers {
				if findServer(r.told, server.RealServerKey) < 0 && !slices.Contains(s.Sorry, server.RealServerKey) {
					s.Sorry = append(s.Sorry, server.RealServerKey)
				}
			}
		}
		for _, server := range r.told {
			if d.checks != nil && d.checks.Server(key, server.RealServerKey).State == lvs.HealthDown || d.inherited[key][server.RealServerKey] {
				s.Down = append(s.Down, server.RealServerKey)
			}
		}
		rec.Services = append(rec.Services, s)
	}
	for _, drain := range d.drains {
		rec.Drains = append(rec.Drains, drain.record())
	}
	return rec
}

// writeRecord writes the record, as a whole or not at all, if it has changed.
func (d *Director) writeRecord() error {
	if d.recordPath == "" {
		return nil
	}
	rec := d.describe()
	if len(rec.Services) == 0 && len(rec.Drains) == 0 {
		if err := os.Remove(d.recordPath); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the record of real servers: %w", err)
		}
		return nil
	}
	text, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("record real servers: %w", err)
	}
	temporary := d.recordPath + ".new"
	if err := os.WriteFile(temporary, text, 0o600); err != nil {
		return fmt.Errorf("record real servers: %w", err)
	}
	if err := os.Rename(temporary, d.recordPath); err != nil {
		return fmt.Errorf("record real servers: %w", err)
	}
	return nil
}

// readRecord takes over what a former director has recorded of services that are there
// still. The plane is left as it is: checks that are set have the next word.
func (d *Director) readRecord(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.recordPath = path
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var rec record
	if err == nil {
		err = json.Unmarshal(text, &rec)
	}
	if err != nil {
		return fmt.Errorf("read the record of real servers: %w: without %s, what checks or drains have quiesced stays so until it is edited", err, path)
	}
	d.inherited = map[lvs.ServiceKey]map[lvs.RealServerKey]bool{}
	for _, s := range rec.Services {
		d.inherit(s)
	}
	for _, r := range rec.Drains {
		d.inheritDrain(r)
	}
	return nil
}

// inherit makes a service's roster what a former director was told.
func (d *Director) inherit(s serviceRecord) {
	r, ok := d.rosters[s.Service]
	if !ok {
		return
	}
	told := s.Told
	for _, server := range r.applied {
		// One that the record does not know came after it was written.
		if findServer(told, server.RealServerKey) < 0 && !slices.Contains(s.Sorry, server.RealServerKey) {
			told = append([]lvs.RealServer{server}, told...)
		}
	}
	servers := map[lvs.RealServerKey]struct{}{}
	for _, server := range told {
		servers[server.RealServerKey] = struct{}{}
		d.hops.hold(server.Address)
	}
	for server := range d.services[s.Service] {
		d.hops.release(server.Address)
	}
	r.told, d.services[s.Service] = told, servers
	down := map[lvs.RealServerKey]bool{}
	for _, server := range s.Down {
		down[server] = true
	}
	d.inherited[s.Service] = down
}

// inheritDrain goes on with a drain. Those of a whole host end when a director starts.
func (d *Director) inheritDrain(r drainRecord) {
	roster, ok := d.rosters[r.Service]
	if !ok || findServer(roster.told, r.Server) < 0 {
		return
	}
	if r.Host {
		d.inheritedDrains = append(d.inheritedDrains, drainKey{r.Service, r.Server})
		return
	}
	d.drains[drainKey{r.Service, r.Server}] = newDrain(r)
	if findServer(roster.applied, r.Server) < 0 {
		return
	}
	state := dataplane.DrainTemplates
	if r.Ended && r.Then != lvs.DrainKeep {
		state = dataplane.DrainExpire
	}
	if err := d.plane.SetDrain(r.Service, r.Server, state); err != nil {
		d.log.Error("drain not taken over", "service", r.Service, "realserver", r.Server, "cause", err)
	}
}
