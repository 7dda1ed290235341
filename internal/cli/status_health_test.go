package cli

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

func TestPrintHealth(t *testing.T) {
	report := exampleStatus()
	s := &report.services[0]
	since := time.Now().Add(-30 * time.Second)
	s.Servers[1].Health = lvs.HealthStatus{State: lvs.HealthUp, Since: since, Suspicion: "9 first packets came again", Suspected: since}
	s.Servers[1].Weight, s.Servers[1].Draining = 0, true
	s.Withheld, s.Servers = s.Servers[:1], s.Servers[1:]
	s.Withheld[0].NextHop = s.Servers[0].NextHop
	s.Withheld[0].Health = lvs.HealthStatus{
		State: lvs.HealthDown, Since: since, Cause: "vip-path-broken", Detail: "tcp: answers at 192.0.2.12, but not for 192.0.2.100",
	}
	s.Quorum = lvs.QuorumStatus{Needed: 3, Have: 1, Lost: true, Since: since}
	const want = `
SERVICE             BY     WEIGHT   HEALTH       ACTIVE  INACTIVE  CONN/S  PKT/S  BYTE/S  NEXT HOP
TCP 192.0.2.100:80  wlc                                            12      70     9000    
  192.0.2.11:80     Route  0 (4)    up, drained  7       5         12      70     9000    02:00:00:00:00:0b on eth0
  192.0.2.12:80     Route  out (2)  down         0       0         0       0      0       02:00:00:00:00:0b on eth0

TCP 192.0.2.100:80: quorum lost 30s ago: weight 1 is live, 3 is needed; no sorry server
192.0.2.11:80 of TCP 192.0.2.100:80: checked early 30s ago: 9 first packets came again
192.0.2.12:80 of TCP 192.0.2.100:80: down for 30s: vip-path-broken: tcp: answers at 192.0.2.12, but not for 192.0.2.100
`
	var got bytes.Buffer
	if err := printServices(&got, report.services); err != nil {
		t.Fatal(err)
	}
	seconds := regexp.MustCompile(`3[0-9]s`)
	if diff := cmp.Diff(want, seconds.ReplaceAllString(got.String(), "30s")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	got.Reset()
	if err := printStatusJSON(&got, report); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"withheld": [`, `"cause": "vip-path-broken"`, `"state": "down"`, `"configured_weight": 4`, `"draining": true`, `"needed": 3`, `"lost": true`,
		`"suspicion": "9 first packets came again"`, `"suspected": "`,
	} {
		if !strings.Contains(got.String(), want) {
			t.Errorf("no %s in %s", want, got.String())
		}
	}
}
