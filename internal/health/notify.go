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
	// notifyBacklog is how many notices may wait for one who is told, so that a site of
	// 10,000 real servers that goes down as a whole is told; of more, the oldest is not.
	notifyBacklog = 16384
	// notifyAge is how old a notice may become that waits: who hangs is not told for hours
	// of what was long ago.
	notifyAge = 5 * time.Minute
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

// A queue is what waits for one who is told; a worker is there for it.
type queue struct {
	waiting []notice
	missed  int // notices that are not told, since it was logged last
}

// A notifier tells of transitions, each who is told in order. Who tells it never waits.
type notifier struct {
	log     *slog.Logger
	slots   chan struct{}
	context context.Context
	cancel  context.CancelFunc
	workers sync.WaitGroup
	client  http.Client

	mu     sync.Mutex
	queues map[string]*queue // by who is told
}

func newNotifier(log *slog.Logger) *notifier {
	n := &notifier{log: log, slots: make(chan struct{}, notifyAtOnce), queues: map[string]*queue{}}
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
		q := n.queues[who]
		if q == nil {
			q = &queue{}
			n.queues[who] = q
			n.workers.Go(func() { n.work(who) })
		}
		if len(q.waiting) == notifyBacklog {
			q.waiting = q.waiting[1:]
			q.missed++
		}
		q.waiting = append(q.waiting, notice{event, one})
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

// next takes the oldest notice that is not too old; false if there is none, and then the
// worker is gone.
func (n *notifier) next(who string) (next notice, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	q := n.queues[who]
	for len(q.waiting) > 0 && !ok {
		next, q.waiting = q.waiting[0], q.waiting[1:]
		if ok = time.Since(next.event.Time) <= notifyAge; !ok {
			q.missed++
		}
	}
	if q.missed > 0 {
		n.log.Error("transitions not told: they waited too long, or too many did", "to", who, "transitions", q.missed)
		q.missed = 0
	}
	if !ok {
		delete(n.queues, who)
	}
	return next, ok
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
