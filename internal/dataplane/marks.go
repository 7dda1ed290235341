package dataplane

import (
	"fmt"
	"sync/atomic"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// MaxMarkRules is how many mark rules there can be: a packet without a connection
// is compared with all of them.
const MaxMarkRules = int(directorLimitMAX_MARK_RULES)

// MarkRules returns the rules that say which packets carry a firewall mark, in the
// order in which they are looked at.
func (p *Plane) MarkRules() []lvs.MarkRule {
	p.mu.Lock()
	defer p.mu.Unlock()
	first, count := p.markRules()
	rules := make([]lvs.MarkRule, 0, count)
	for _, wire := range p.view.marks.elements[first : first+count] {
		rules = append(rules, fromMarkRule(wire))
	}
	return rules
}

// SetMarkRules replaces all rules at once: each packet meets the former ones or the
// new ones. It wraps lvs.ErrTableFull.
func (p *Plane) SetMarkRules(rules []lvs.MarkRule) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(rules) > MaxMarkRules {
		return fmt.Errorf("set %d mark rules: %w: there can be %d", len(rules), lvs.ErrTableFull, MaxMarkRules)
	}
	// Packets may still be at the other half, which held before the present one.
	if err := p.settle(); err != nil {
		return fmt.Errorf("set mark rules: %w", err)
	}
	first, _ := p.markRules()
	first = uint32(MaxMarkRules) - first
	for i, rule := range rules {
		p.view.marks.elements[first+uint32(i)] = toMarkRule(rule)
	}
	atomic.StoreUint32(&p.settings().MarkRules, first<<16|uint32(len(rules)))
	return nil
}

// markRules returns where the rules that hold begin, and how many they are.
func (p *Plane) markRules() (first, count uint32) {
	word := atomic.LoadUint32(&p.settings().MarkRules)
	return word >> 16, word & 0xffff
}
