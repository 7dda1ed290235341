package lvs

import "testing"

func TestBytePatternBegins(t *testing.T) {
	for _, test := range []struct {
		name  string
		p     BytePattern
		data  string
		match bool
	}{
		{"empty", BytePattern{}, "", true},
		{"empty of anything", BytePattern{}, "x", true},
		{"all", BytePattern{"ab", "\xff\xff"}, "ab", true},
		{"the beginning", BytePattern{"ab", "\xff\xff"}, "abc", true},
		{"too short", BytePattern{"ab", "\xff\x00"}, "a", false},
		{"another", BytePattern{"ab", "\xff\xff"}, "ac", false},
		{"half a byte", BytePattern{"\xa0", "\xf0"}, "\xaf", true},
		{"the other half", BytePattern{"\xa0", "\x0f"}, "\xaf", false},
	} {
		if got := test.p.Begins([]byte(test.data)); got != test.match {
			t.Errorf("%s: got %v", test.name, got)
		}
	}
}

func TestNotificationWants(t *testing.T) {
	all, some := Notification{}, Notification{On: []Transition{ServerDown, QuorumDown}}
	for _, transition := range Transitions() {
		want := transition == ServerDown || transition == QuorumDown
		if !all.Wants(transition) || some.Wants(transition) != want {
			t.Errorf("%s: all %v, some %v", transition, all.Wants(transition), some.Wants(transition))
		}
	}
}
