package scenario

import "testing"

func TestWithoutAnswers(t *testing.T) {
	const ours = "| FWM  1 IPv6                             20       52        1     7642       60"
	for _, test := range []struct {
		name, kernel string
		most         int
		same         bool
	}{
		{"one of its own", "| FWM  1 IPv6                             20       52        2     7642      168", 3, true},
		{"it sent none", "| FWM  1 IPv6                             20       52        2     7642      168", 0, false},
		{"too small for one", "| FWM  1 IPv6                             20       52        2     7642       80", 3, false},
		{"other packets too", "| FWM  1 IPv6                             20       53        2     7642      168", 3, false},
		{"fewer", "| FWM  1 IPv6                             20       52        0     7642        0", 3, false},
	} {
		if got := withoutAnswers(test.kernel, ours, test.most); (got == ours) != test.same {
			t.Errorf("%s: got %q", test.name, got)
		}
	}
}
