package health

import (
	"bufio"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// Those who are told get each transition once, in order, and hold nobody up.
func TestNotifications(t *testing.T) {
	events := make(chan Event, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var e Event
		if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
			t.Error(err)
		}
		events <- e
	}))
	defer hook.Close()
	pipe := filepath.Join(t.TempDir(), "told")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	told, err := os.OpenFile(pipe, os.O_RDWR, 0) // so that it opens without a writer
	if err != nil {
		t.Fatal(err)
	}
	defer told.Close()
	b, server := newBench(t), member("192.0.2.11:80", 1)
	want := serviceOf(web, tcpCheck(lvs.PathRIP), server)
	want.Servers[0].Notify = []lvs.Notification{
		{Script: script(t, "exec sleep 60")},
		{Webhook: hook.URL},
		{On: []lvs.Transition{lvs.ServerDown}, Script: script(t, `echo "$1 $FAIRLEAD_TRANSITION $FAIRLEAD_SERVER $FAIRLEAD_CAUSE $(cat)" > `+pipe)},
	}
	want.Notify, want.Quorum = []lvs.Notification{{Webhook: hook.URL}}, 1
	b.network.set("rip 192.0.2.11:80", nil)
	b.must(t, b.Set([]Service{want}))
	b.becomes(t, web, server, lvs.HealthUp, "")
	b.network.set("rip 192.0.2.11:80", unix.ECONNREFUSED)
	b.becomes(t, web, server, lvs.HealthDown, ProcessDown)
	b.InForce(web, want.Members)
	b.network.set("rip 192.0.2.11:80", nil)
	b.becomes(t, web, server, lvs.HealthUp, "")
	b.InForce(web, want.Members)
	for _, want := range []lvs.Transition{lvs.ServerDown, lvs.QuorumDown, lvs.ServerUp, lvs.QuorumUp} {
		select {
		case e := <-events:
			if e.Transition != want || e.Service != "TCP 192.0.2.100:80" || (want == lvs.ServerDown && e.Cause != "process-down") {
				t.Errorf("got %+v, want %s", e, want)
			}
		case <-time.After(waitLimit):
			t.Fatalf("%s: not told", want)
		}
	}
	if err := told.SetReadDeadline(time.Now().Add(waitLimit)); err != nil {
		t.Fatal(err)
	}
	text, err := bufio.NewReader(told).ReadString('\n')
	if err != nil || !strings.HasPrefix(text, `one two down 192.0.2.11:80 process-down {"time":`) || !strings.HasSuffix(text, "}\n") {
		t.Errorf("the script: %v, %q", err, text)
	}
}

// Who never answers keeps nobody else from being told of thousands of transitions, in their
// order; and is not told of all that has waited.
func TestManyTransitionsAreTold(t *testing.T) {
	const transitions = 10_000
	told, all := 0, make(chan struct{})
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var e Event
		if err := json.NewDecoder(r.Body).Decode(&e); err != nil || e.Detail != strconv.Itoa(told) {
			t.Errorf("%v, got the notice of %s, want that of %d", err, e.Detail, told)
		}
		if told++; told == transitions {
			close(all)
		}
	}))
	defer hook.Close()
	released := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-released }))
	defer silent.Close()
	defer close(released)
	n := newNotifier(slog.New(slog.DiscardHandler))
	hanging := lvs.Notification{Script: script(t, "exec sleep 60")}
	for i := range transitions {
		n.tell([]lvs.Notification{{Webhook: silent.URL}, hanging, {Webhook: hook.URL}}, Event{Time: time.Now(), Detail: strconv.Itoa(i)})
	}
	select {
	case <-all:
	case <-time.After(waitLimit):
		t.Fatal("not told in time")
	}
	for i := range notifyBacklog {
		n.tell([]lvs.Notification{{Webhook: silent.URL}}, Event{Time: time.Now(), Detail: strconv.Itoa(i)})
	}
	n.mu.Lock()
	waiting := n.queues[silent.URL].waiting
	if len(waiting) != notifyBacklog || waiting[0].event.Detail != "0" {
		t.Errorf("%d wait, the first is %s", len(waiting), waiting[0].event.Detail)
	}
	for i := range waiting[:len(waiting)-1] {
		waiting[i].event.Time = time.Now().Add(-notifyAge - time.Second)
	}
	n.mu.Unlock()
	if next, ok := n.next(silent.URL); !ok || next.event.Detail != strconv.Itoa(notifyBacklog-1) {
		t.Errorf("told of %s, which is old", next.event.Detail)
	}
	begun := time.Now()
	n.close()
	if took := time.Since(begun); took > waitLimit/2 {
		t.Errorf("it took %s to close", took)
	}
}
