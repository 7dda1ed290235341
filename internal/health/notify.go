package health

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

const (
	// notifyWorkers tell at once, so that one who hangs holds up few others. Each of
	// those who are told has one of them, so that all comes in order.
	notifyWorkers = 8
	// notifyBacklog is how many may wait for a worker; those that come after are not
	// told.
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

// A notifier tells of transitions. Who tells it never waits.
type notifier struct {
	log     *slog.Logger
	queues  [notifyWorkers]chan notice
	seed    maphash.Seed
	context context.Context
	cancel  context.CancelFunc
	workers sync.WaitGroup
	client  http.Client
}

func newNotifier(log *slog.Logger) *notifier {
	n := &notifier{log: log, seed: maphash.MakeSeed()}
	n.context, n.cancel = context.WithCancel(context.Background())
	for i := range n.queues {
		queue := make(chan notice, notifyBacklog)
		n.queues[i] = queue
		n.workers.Go(func() { n.work(queue) })
	}
	return n
}

// close ends what is being told. What waits is told nobody.
func (n *notifier) close() {
	n.cancel()
	n.workers.Wait()
	n.client.CloseIdleConnections()
}

// tell hands an event to those who want it.
func (n *notifier) tell(to []lvs.Notification, event Event) {
	for _, one := range to {
		if !one.Wants(event.Transition) {
			continue
		}
		select {
		case n.queues[maphash.String(n.seed, one.Webhook+one.Script.Path)%notifyWorkers] <- notice{event, one}:
		default:
			n.log.Error("transition not told: too many wait", "service", event.Service, "realserver", event.Server, "transition", event.Transition)
		}
	}
}

func (n *notifier) work(queue <-chan notice) {
	for {
		select {
		case <-n.context.Done():
			return
		case notice := <-queue:
			if err := n.deliver(notice); err != nil {
				n.log.Error("transition not told", "service", notice.event.Service, "realserver", notice.event.Server,
					"transition", notice.event.Transition, "cause", err)
			}
		}
	}
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
