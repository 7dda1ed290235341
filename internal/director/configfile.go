package director

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/api"
)

// fileInterval is how often the configuration file is looked at. It is read when it
// was the same twice: a file that is being written may be whole before its end.
const fileInterval = time.Second

// A fileState is what tells that a file was written or replaced.
type fileState struct {
	modified time.Time
	size     int64
	inode    uint64
}

// A configFile is the file that a director follows.
type configFile struct {
	path string
	seen fileState // when it was looked at last
	read fileState // when it was read last
}

func stateOf(path string) (fileState, error) {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return fileState{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return fileState{time.Unix(stat.Mtim.Unix()), stat.Size, stat.Ino}, nil
}

// startWith applies the file at path at the start, and remembers it to be followed; ""
// is none. Where forwarding was taken over, a file that has not changed since it was
// read last leaves what was applied or rolled back to after it; and a bad file is told,
// and what is there goes on. Else nothing would be forwarded: a bad file is an error.
func (d *Director) startWith(path string) error {
	if path == "" {
		return nil
	}
	d.file = &configFile{path: path}
	text, err := d.file.load()
	if err == nil && d.tookOver {
		all, listErr := d.Revisions(context.Background())
		if listErr != nil {
			return listErr
		}
		if same, last := lastOf(all, path); same != nil && same.Text == string(text) && !last {
			d.log.Info("configuration file unchanged; a later revision holds", "file", path, "revision", all[len(all)-1].Number)
			return nil
		}
	}
	if err == nil {
		_, err = d.Apply(context.Background(), api.ApplyRequest{Name: path, Text: text})
	}
	if err != nil && d.tookOver {
		d.log.Error("configuration file not applied; all goes on as it was", "file", path, "cause", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("apply configuration: %w", err)
	}
	return nil
}

// lastOf returns the last revision that came from a file, and whether it is the last
// of all.
func lastOf(all []api.Revision, name string) (revision *api.Revision, last bool) {
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Name == name && all[i].Of == all[i].Number {
			return &all[i], i == len(all)-1
		}
	}
	return nil, false
}

// load reads the file, and remembers as what.
func (f *configFile) load() ([]byte, error) {
	state, err := stateOf(f.path)
	if err != nil {
		return nil, err
	}
	f.seen, f.read = state, state
	return os.ReadFile(f.path)
}

// followFile applies the file when it has changed, or when reload says so, until ctx ends.
func (d *Director) followFile(ctx context.Context, reload <-chan os.Signal) {
	if d.file == nil {
		return
	}
	ticker := time.NewTicker(fileInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-reload:
			d.reload(d.file)
		case <-ticker.C:
			if d.file.changed() {
				d.reload(d.file)
			}
		}
	}
}

// changed reports whether the file is another than was read, and has been the same
// since it was looked at before. A file that is not there is no change: it is being
// replaced.
func (f *configFile) changed() bool {
	state, err := stateOf(f.path)
	if err != nil {
		return false
	}
	settled := state == f.seen
	f.seen = state
	return settled && state != f.read
}

// reload applies the file as it is now; what is wrong with it is told, and changes
// nothing.
func (d *Director) reload(f *configFile) {
	text, err := f.load()
	if err == nil {
		_, err = d.Apply(context.Background(), api.ApplyRequest{Name: f.path, Text: text})
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.log.Error("configuration file not there; nothing is changed", "file", f.path)
	case err != nil:
		d.log.Error("configuration file not applied; nothing is changed", "file", f.path, "cause", err)
	}
}
