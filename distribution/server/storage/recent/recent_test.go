package recent

import (
	"strconv"
	"testing"
)

// What is remembered is bounded, and what is in use stays.
func TestBounded(t *testing.T) {
	const maxBytes, size = 1 << 20, 10_000
	c := Cache[int]{MaxBytes: maxBytes}
	c.Put("used", 7, 1)
	for i := range 3000 {
		c.Put(strconv.Itoa(i), i, size)
		c.Put(strconv.Itoa(i), i+1, size) // counted once
		if v, ok := c.Get("used"); !ok || v != 7 {
			t.Fatalf("forgotten after %d", i)
		}
		if v, ok := c.Get(strconv.Itoa(i)); !ok || v != i+1 {
			t.Fatalf("%d: %d, %v", i, v, ok)
		}
	}
	if bytes := (len(c.young) + len(c.old)) * size; bytes > 2*maxBytes || bytes < maxBytes/2 {
		t.Errorf("%d bytes", bytes)
	}
	if _, ok := c.Get("0"); ok {
		t.Error("nothing is ever forgotten")
	}
}
