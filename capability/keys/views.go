package keys

import "sync"

// Views are what a component looks like to each app, made once for each. The zero value has none.
type Views[T any] struct {
	mu   sync.RWMutex
	made map[view]*T
}

type view struct{ head, app, namespace string }

// Get finds a view, or makes it; head is what stands before the prefix.
func (v *Views[T]) Get(head, app, namespace string, make func() (*T, error)) (*T, error) {
	key := view{head, app, namespace}
	v.mu.RLock()
	t := v.made[key]
	v.mu.RUnlock()
	if t != nil {
		return t, nil
	}
	t, err := make()
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.made == nil {
		v.made = map[view]*T{}
	}
	v.made[key] = t
	return t, nil
}
