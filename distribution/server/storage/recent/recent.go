// Package recent remembers what was used lately of the many small things that a
// registry of the OCI Distribution Spec reads again and again, bounded by their bytes.
package recent

import "sync"

// Cache keeps two generations, and what is in use moves to the younger one: when that
// is full, the older one is forgotten. Its methods are safe for concurrent use.
type Cache[V any] struct {
	// MaxBytes bounds a generation.
	MaxBytes int

	mu         sync.Mutex
	young, old map[string]entry[V]
	youngBytes int
}

type entry[V any] struct {
	value     V
	costBytes int
}

// entryBytes is about what an entry takes besides its key and value.
const entryBytes = 200

// Get returns what was put under key, if it is still there.
func (c *Cache[V]) Get(key string) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.young[key]
	if !ok {
		if e, ok = c.old[key]; ok {
			c.keep(key, e)
		}
	}
	return e.value, ok
}

// Put remembers a value that takes about so many bytes.
func (c *Cache[V]) Put(key string, value V, sizeBytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keep(key, entry[V]{value, len(key) + sizeBytes + entryBytes})
}

// keep puts an entry into the younger generation. The caller holds the lock.
func (c *Cache[V]) keep(key string, e entry[V]) {
	if before, ok := c.young[key]; ok {
		c.youngBytes -= before.costBytes
	}
	if c.young == nil || c.youngBytes+e.costBytes > c.MaxBytes {
		c.young, c.old, c.youngBytes = map[string]entry[V]{}, c.young, 0
	}
	c.young[key] = e
	c.youngBytes += e.costBytes
}
