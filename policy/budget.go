package policy

import (
	"cmp"
	"sync"
	"time"

	"github.com/loam-run/loam"
)

// BudgetConfig bounds retries by what is sent anyway. Zero fields take the default beside them.
type BudgetConfig struct {
	Percent      float64 // of the requests of the last ten seconds; 20
	MinPerSecond int     // always; 10; negative: none
}

// A Budget is what retries and hedges may add to a target's load, so that a target that is slow or half dead is not sent
// several times what it could not bear in the first place. All ways to the target share one.
type Budget struct {
	c    BudgetConfig
	seen *window // requests, and what was spent
	mu   sync.Mutex
}

// NewBudget makes a full budget.
func NewBudget(c BudgetConfig) *Budget {
	c.Percent = cmp.Or(c.Percent, 20)
	c.MinPerSecond = cmp.Or(c.MinPerSecond, 10)
	return &Budget{c: c, seen: newWindow(10 * time.Second)}
}

// earn counts a request that is sent anyway.
func (b *Budget) earn(t loam.Task) {
	if b != nil {
		b.seen.add(t, t.Now(), 1, 0)
	}
}

// spend tells whether one more may be sent, and counts it. A nil budget has no end.
func (b *Budget) spend(t loam.Task) bool {
	if b == nil {
		return true
	}
	now := t.Now()
	b.mu.Lock() // only who retries comes here: two must not spend the same
	defer b.mu.Unlock()
	_, lately := b.seen.sum(now, 1)
	if lately >= int64(b.c.MinPerSecond) {
		requests, spent := b.seen.sum(now, windowTenths)
		if float64(spent+1) > float64(requests)*b.c.Percent/100 {
			return false
		}
	}
	b.seen.add(t, now, 0, 1)
	return true
}
