package weft

import (
	"maps"
	"slices"
	"sync"
)

// leases are those of the messages in hand.
type leases struct {
	mutex   sync.Mutex
	held    map[string]bool
	ending  bool
	settled sync.WaitGroup
}

// add takes one in hand, or refuses it after finish.
func (l *leases) add(lease string) bool {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.ending {
		return false
	}
	if l.held == nil {
		l.held = map[string]bool{}
	}
	l.held[lease] = true
	l.settled.Add(1)
	return true
}

func (l *leases) remove(lease string) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	delete(l.held, lease)
	l.settled.Done()
}

func (l *leases) all() []string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return slices.Collect(maps.Keys(l.held))
}

// finish takes no more, and waits until none is in hand.
func (l *leases) finish() {
	l.mutex.Lock()
	l.ending = true
	l.mutex.Unlock()
	l.settled.Wait()
}
