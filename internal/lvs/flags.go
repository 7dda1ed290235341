package lvs

import (
	"fmt"
	"slices"
	"strings"
)

// flagWords are the flags from the lowest bit on, where a scheduler has names of its
// own for them.
var flagWords = map[Scheduler][3]string{
	SourceHashing: {"sh-fallback", "sh-port", "flag-3"},
	MaglevHashing: {"mh-fallback", "mh-port", "mh-stable"},
}

var plainFlagWords = [3]string{"flag-1", "flag-2", "flag-3"}

// FlagNames returns what a scheduler calls each of its flags that is set, from the
// lowest bit on.
func (s Scheduler) FlagNames(flags SchedulerFlags) []string {
	words, ok := flagWords[s]
	if !ok {
		words = plainFlagWords
	}
	var names []string
	for bit, word := range words {
		if flags&(1<<bit) != 0 {
			names = append(names, word)
		}
	}
	return names
}

// ParseFlags reads flags by the scheduler's names or by their numbers (flag-1). It
// wraps ErrInvalid.
func (s Scheduler) ParseFlags(names []string) (SchedulerFlags, error) {
	words := flagWords[s]
	var flags SchedulerFlags
	for _, name := range names {
		bit := slices.Index(plainFlagWords[:], name)
		if bit < 0 {
			bit = slices.Index(words[:], name)
		}
		if bit < 0 || name == "" {
			return 0, fmt.Errorf("flag %q: %w: scheduler %s has none of that name: want %s", name, ErrInvalid, s,
				strings.Join(s.FlagNames(Flag1|Flag2|Flag3), ", "))
		}
		flags |= 1 << bit
	}
	return flags, nil
}
