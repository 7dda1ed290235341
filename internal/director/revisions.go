package director

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-lb/fairlead/internal/api"
)

// keptRevisions is how many configurations are kept to be rolled back to.
const keptRevisions = 50

// revisions are the configurations that were applied: a file for each in dir, which
// comes there whole by a rename.
type revisions struct{ dir string }

// A revisionFile is the form of a file, of version 1.
type revisionFile struct {
	Version       int       `json:"version"`
	Number        int       `json:"number"`
	Time          time.Time `json:"time"`
	Name          string    `json:"name"`
	Of            int       `json:"of"`
	Configuration string    `json:"configuration"`
}

func (r revisions) path(number int) string {
	return filepath.Join(r.dir, fmt.Sprintf("%08d.json", number))
}

// numbers returns those that are kept, in order.
func (r revisions) numbers() ([]int, error) {
	entries, err := os.ReadDir(r.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list revisions: %w", err)
	}
	var numbers []int
	for _, entry := range entries {
		var number int
		if _, err := fmt.Sscanf(entry.Name(), "%08d.json", &number); err == nil && r.path(number) == filepath.Join(r.dir, entry.Name()) {
			numbers = append(numbers, number)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

func (r revisions) read(number int) (api.Revision, error) {
	data, err := os.ReadFile(r.path(number))
	if err != nil {
		return api.Revision{}, fmt.Errorf("read revision %d: %w", number, err)
	}
	var f revisionFile
	if err := json.Unmarshal(data, &f); err != nil || f.Version != 1 {
		return api.Revision{}, fmt.Errorf("read revision %d: %s is not of this version: remove it", number, r.path(number))
	}
	return api.Revision{Number: number, Time: f.Time, Name: f.Name, Of: f.Of, Text: f.Configuration}, nil
}

func (r revisions) all() ([]api.Revision, error) {
	numbers, err := r.numbers()
	if err != nil {
		return nil, err
	}
	all := make([]api.Revision, 0, len(numbers))
	for _, number := range numbers {
		revision, err := r.read(number)
		if err != nil {
			return nil, err
		}
		all = append(all, revision)
	}
	return all, nil
}

// last returns the last revision; its Number is 0 if there is none.
func (r revisions) last() (api.Revision, error) {
	numbers, err := r.numbers()
	if err != nil || len(numbers) == 0 {
		return api.Revision{}, err
	}
	return r.read(numbers[len(numbers)-1])
}

// A pendingRevision is written, and kept or discarded when it is known whether it
// holds.
type pendingRevision struct {
	revisions
	revision api.Revision
	file     string // "" when it is kept or discarded
}

// prepare writes a revision, so that nothing is applied of which no record can be kept.
func (r revisions) prepare(revision api.Revision) (*pendingRevision, error) {
	numbers, err := r.numbers()
	if err != nil {
		return nil, err
	}
	revision.Number, revision.Time = 1, now()
	if len(numbers) > 0 {
		revision.Number = numbers[len(numbers)-1] + 1
	}
	if revision.Of == 0 {
		revision.Of = revision.Number
	}
	p := &pendingRevision{revisions: r, revision: revision}
	if err := p.write(); err != nil {
		p.discard()
		return nil, fmt.Errorf("keep revision %d: %w", revision.Number, err)
	}
	return p, nil
}

func (p *pendingRevision) write() error {
	data, err := json.Marshal(revisionFile{
		Version: 1, Number: p.revision.Number, Time: p.revision.Time, Name: p.revision.Name, Of: p.revision.Of,
		Configuration: p.revision.Text,
	})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(p.dir, "pending-*")
	if err != nil {
		return err
	}
	p.file = f.Name()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// discard removes it, unless it was kept.
func (p *pendingRevision) discard() {
	if p.file != "" {
		os.Remove(p.file)
		p.file = ""
	}
}

// keep makes it the last one, and forgets the oldest.
func (p *pendingRevision) keep() (api.Revision, error) {
	if err := os.Rename(p.file, p.path(p.revision.Number)); err != nil {
		return api.Revision{}, fmt.Errorf("keep revision %d: %w", p.revision.Number, err)
	}
	p.file = ""
	numbers, err := p.numbers()
	if err != nil {
		return p.revision, err
	}
	for len(numbers) > keptRevisions {
		if err := os.Remove(p.path(numbers[0])); err != nil {
			return p.revision, fmt.Errorf("forget revision %d: %w", numbers[0], err)
		}
		numbers = numbers[1:]
	}
	return p.revision, nil
}

// removeRevisions removes what directors kept in a run directory.
func removeRevisions(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, entry := range entries {
		if name := entry.Name(); strings.HasSuffix(name, ".json") || strings.HasPrefix(name, "pending-") {
			err = errors.Join(err, os.Remove(filepath.Join(dir, name)))
		}
	}
	if err = errors.Join(err, os.Remove(dir)); err != nil {
		return fmt.Errorf("remove the revisions: %w", err)
	}
	return nil
}
