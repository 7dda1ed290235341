package director

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/dataplane"
)

// An attacher is what attaches the data plane; *dataplane.Plane is one.
type attacher interface {
	Attach(interfaces []string) ([]dataplane.Attachment, error)
	RefreshInterfaces() error
}

// attachments are the interfaces that the data plane is attached to. They are
// safe for concurrent use.
type attachments struct {
	mu   sync.Mutex
	are  []api.Interface
	lost error // of the last refresh
}

func (a *attachments) list() []api.Interface {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.are)
}

// problem says what is wrong with them, "" if nothing is.
func (a *attachments) problem() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lost != nil {
		return a.lost.Error()
	}
	return ""
}

// attach attaches to the interfaces of these names and no others.
func (a *attachments) attach(to attacher, names []string, log *slog.Logger) error {
	attached, err := to.Attach(names)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.are = nil
	for _, one := range attached {
		a.are = append(a.are, api.Interface{Name: one.Interface, Mode: string(one.Mode)})
		log.Info("attached", "interface", one.Interface, "mode", one.Mode)
	}
	return nil
}

// refresh follows changes of the interfaces. It attaches again to one that was
// deleted and made anew.
func (a *attachments) refresh(to attacher, names []string, log *slog.Logger) error {
	err := a.follow(to, names, log)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lost = err
	return err
}

func (a *attachments) follow(to attacher, names []string, log *slog.Logger) error {
	err := to.RefreshInterfaces()
	if err == nil {
		return nil
	}
	if a.attach(to, names, log) != nil {
		return fmt.Errorf("an interface is lost until it is there again: %w", err)
	}
	return nil
}
