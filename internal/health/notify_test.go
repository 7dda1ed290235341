package health

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
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
