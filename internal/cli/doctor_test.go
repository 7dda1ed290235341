package cli

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/doctor"
)

func TestWriteFindings(t *testing.T) {
	host := doctor.Host{Role: doctor.RealServer, Address: netip.MustParseAddr("192.0.2.11")}
	told := doctor.Finding{Check: doctor.PeerFrames, Level: doctor.Healthy, Host: host, What: "what", Why: "why"}
	wrong := doctor.Finding{Check: doctor.NoVIP, Level: doctor.Error, Service: "192.0.2.100", Host: host, What: "what", Why: "why",
		Mend: []doctor.Remedy{{Host: host, Command: "true"}}}
	for _, test := range []struct {
		findings []doctor.Finding
		want     string
	}{
		{nil, "all is well\n"},
		{[]doctor.Finding{told}, "all is well\n\nhealthy  peer-frames\n  what\n  why\n"},
		{[]doctor.Finding{told, wrong}, "healthy  peer-frames\n  what\n  why\n\n" +
			"error  no-vip  192.0.2.100\n  what\n  why\n  on real server 192.0.2.11:\n    true\n"},
	} {
		var got bytes.Buffer
		if err := writeFindings(&got, test.findings); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, got.String()); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
}
