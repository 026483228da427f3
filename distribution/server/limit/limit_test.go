package limit

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// TestAdmit: a burst goes, then as many as there may be in a time, and no client
// is in another's way.
func TestAdmit(t *testing.T) {
	l := New(Options{Requests: 20, Burst: 5})
	for i := range 5 {
		if wait := l.Admit("a"); wait != 0 {
			t.Fatal(i, wait)
		}
	}
	wait := l.Admit("a")
	if wait <= 0 || wait > 50*time.Millisecond || l.Blocked("a") <= 0 {
		t.Fatal(wait)
	}
	if l.Admit("b") != 0 || l.Blocked("c") != 0 {
		t.Error("others wait, too")
	}
	time.Sleep(wait)
	if wait := l.Admit("a"); wait != 0 {
		t.Error("comes when it was told to, and waits for", wait)
	}
	if l.Admit("a") == 0 {
		t.Error("not only one more")
	}
	if wait := New(Options{}).Admit("a"); wait != 0 {
		t.Error(wait)
	}
}

func TestPace(t *testing.T) {
	l := New(Options{BytesPerSecond: 1000})
	if wait := l.Pace("a", 100); wait < 90*time.Millisecond || wait > 100*time.Millisecond {
		t.Error(wait)
	}
	if wait := l.Pace("a", 900); wait < 900*time.Millisecond || wait > time.Second {
		t.Error(wait)
	}
	if wait := l.Pace("b", 1); wait > time.Millisecond {
		t.Error(wait)
	}
}

// TestBounded: however many clients there are, only so many are remembered, and
// those who wait longest are.
func TestBounded(t *testing.T) {
	l := New(Options{Requests: 1, Burst: 1, BytesPerSecond: 1})
	l.Pace("the greedy one", 1<<30)
	var group sync.WaitGroup
	for w := range 4 {
		group.Go(func() {
			for i := range MaxClients / 2 {
				l.Admit(fmt.Sprint(w, " ", i))
			}
		})
	}
	group.Wait()
	if n := l.Clients(); n > MaxClients || n < MaxClients/2 {
		t.Error(n)
	}
	if wait := l.Pace("the greedy one", 0); wait < time.Hour {
		t.Error("is forgotten:", wait)
	}
	quick := New(Options{Requests: 1_000_000, Burst: 1})
	for i := range 1000 {
		quick.Admit(fmt.Sprint(i))
		time.Sleep(time.Microsecond)
	}
	for i := range 1000 {
		quick.Blocked(fmt.Sprint(i))
	}
	if n := quick.Clients(); n != 0 {
		t.Errorf("%d are remembered for nothing", n)
	}
}

func BenchmarkAdmit(b *testing.B) {
	l := New(Options{Requests: 1_000_000_000, Burst: 1 << 30})
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			l.Admit("user alice")
		}
	})
}
