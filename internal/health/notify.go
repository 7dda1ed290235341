package health

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

const (
	// notifyAtOnce bounds how many are told at once. One who hangs holds up nobody else
	// before so many do.
	notifyAtOnce = 64
	// notifyBacklog is how many notices may wait for one who is told; those that come
	// after are not told.
	notifyBacklog = 1024
	// notifyPatience is for one that is told.
	notifyPatience = 10 * time.Second
)

// An Event is what is told of a transition: as JSON in the body of a POST, or on the
// standard input of a command, which has it in its environment too.
type Event struct {
	Time       time.Time      `json:"time"`
	Transition lvs.Transition `json:"transition"`
	Service    string         `json:"service"`
	Server     string         `json:"server,omitempty"` // not of a quorum
	Before     string         `json:"before,omitempty"` // the state before
	Cause      string         `json:"cause,omitempty"`
	Detail     string         `json:"detail,omitempty"`
}

// A notice is an event on its way to one who wants it.
type notice struct {
	event Event
	to    lvs.Notification
}

// A notifier tells of transitions, each who is told in order. Who tells it never waits.
type notifier struct {
	log     *slog.Logger
	slots   chan struct{}
	context context.Context
	cancel  context.CancelFunc
	workers sync.WaitGroup
	client  http.Client

	mu      sync.Mutex
	waiting map[string][]notice // by who is told; a worker is there for each key
}

func newNotifier(log *slog.Logger) *notifier {
	n := &notifier{log: log, slots: make(chan struct{}, notifyAtOnce), waiting: map[string][]notice{}}
	n.context, n.cancel = context.WithCancel(context.Background())
	return n
}

// close ends what is being told. What waits is told nobody.
func (n *notifier) close() {
	n.mu.Lock()
	n.cancel()
	n.mu.Unlock()
	n.workers.Wait()
	n.client.CloseIdleConnections()
}

// tell hands an event to those who want it.
func (n *notifier) tell(to []lvs.Notification, event Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.context.Err() != nil {
		return
	}
	for _, one := range to {
		if !one.Wants(event.Transition) {
			continue
		}
		who := one.Webhook + one.Script.Path
		waiting, busy := n.waiting[who]
		if len(waiting) == notifyBacklog {
			n.log.Error("transition not told: too many wait", "service", event.Service, "realserver", event.Server, "transition", event.Transition)
			continue
		}
		n.waiting[who] = append(waiting, notice{event, one})
		if !busy {
			n.workers.Go(func() { n.work(who) })
		}
	}
}

// work tells one of those who are told, until nothing waits.
func (n *notifier) work(who string) {
	for {
		notice, ok := n.next(who)
		if !ok {
			return
		}
		select {
		case <-n.context.Done():
			return
		case n.slots <- struct{}{}:
		}
		err := n.deliver(notice)
		<-n.slots
		if err != nil {
			n.log.Error("transition not told", "service", notice.event.Service, "realserver", notice.event.Server,
				"transition", notice.event.Transition, "cause", err)
		}
	}
}

// next takes the oldest notice that waits; false if there is none, and then the worker
// is gone.
func (n *notifier) next(who string) (notice, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	waiting := n.waiting[who]
	if len(waiting) == 0 {
		delete(n.waiting, who)
		return notice{}, false
	}
	n.waiting[who] = waiting[1:]
	return waiting[0], true
}

func (n *notifier) deliver(notice notice) error {
	ctx, cancel := context.WithTimeout(n.context, notifyPatience)
	defer cancel()
	text, err := json.Marshal(notice.event)
	if err != nil {
		return err
	}
	if notice.to.Webhook != "" {
		return n.post(ctx, notice.to.Webhook, text)
	}
	return n.run(ctx, notice, text)
}

func (n *notifier) post(ctx context.Context, url string, body []byte) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("post to %s: %w", url, err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", userAgent)
	response, err := n.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(response.Body, maxBody)); err != nil {
		return fmt.Errorf("post to %s: %w", url, err)
	}
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return fmt.Errorf("post to %s: status %d", url, response.StatusCode)
	}
	return nil
}

func (n *notifier) run(ctx context.Context, notice notice, text []byte) error {
	e := notice.event
	var output beginning
	cmd := command(ctx, notice.to.Script, []string{
		"FAIRLEAD_TRANSITION=" + string(e.Transition), "FAIRLEAD_SERVICE=" + e.Service, "FAIRLEAD_SERVER=" + e.Server,
		"FAIRLEAD_CAUSE=" + e.Cause, "FAIRLEAD_DETAIL=" + e.Detail,
	})
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(text), &output, &output
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s: %w: %s", notice.to.Script.Path, err, quote(output.Bytes()))
	}
	return nil
}
