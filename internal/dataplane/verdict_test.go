package dataplane

import (
	"strings"
	"testing"
)

// Every verdict has a name, a kind and a meaning, and they fit each other.
func TestVerdictTexts(t *testing.T) {
	names := map[string]bool{}
	for i, v := range verdictTexts {
		if v.Name == "" || v.Meaning == "" {
			t.Errorf("verdict %d: name %q, meaning %q", i, v.Name, v.Meaning)
			continue
		}
		if names[v.Name] {
			t.Errorf("verdict %d: name %q is another one's too", i, v.Name)
		}
		names[v.Name] = true
		switch v.Kind {
		case KindNormal, KindMisconfiguration, KindBug:
		default:
			t.Errorf("%s: kind %q", v.Name, v.Kind)
		}
		if isBug := strings.HasPrefix(v.Name, "bug-") || v.Name == "continue"; isBug != (v.Kind == KindBug) {
			t.Errorf("%s: kind %q", v.Name, v.Kind)
		}
		for _, kind := range []struct{ name, meaning string }{
			{"pass-", "to the host"}, {"forward-reply", "to a client"}, {"forward", "to a real server"},
			{"answer-", "answered with"}, {"drop-", "dropped"},
		} {
			if !strings.HasPrefix(v.Name, kind.name) {
				continue
			}
			if !strings.HasPrefix(v.Meaning, kind.meaning) {
				t.Errorf("%s: %q, want it to begin with %q", v.Name, v.Meaning, kind.meaning)
			}
			break
		}
	}
}

// The names are those of the enum, in its order.
func TestVerdictsAreThoseOfTheProgram(t *testing.T) {
	for i, value := range enumValues(t, "verdict") {
		if value == "VERDICTS" {
			if i != len(verdictTexts) {
				t.Errorf("%d verdicts, %d texts", i, len(verdictTexts))
			}
			break
		}
		if want := strings.ReplaceAll(strings.ToLower(value), "_", "-"); verdictTexts[i].Name != want {
			t.Errorf("verdict %d is called %q, want %q", i, verdictTexts[i].Name, want)
		}
	}
}
