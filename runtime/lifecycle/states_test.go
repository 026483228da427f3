package lifecycle_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
	"github.com/tare-oci/tare/runtime/lifecycle"
)

// status is a container's state, or "gone".
func (b *bundle) status() specs.ContainerState {
	b.t.Helper()
	c, err := b.store.Load(b.id)
	if errors.Is(err, lifecycle.ErrNotExist) {
		return "gone"
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return c.Status()
}

func (b *bundle) wantStatus(want specs.ContainerState) {
	b.t.Helper()
	if got := b.status(); got != want {
		b.t.Errorf("container is %s, want %s", got, want)
	}
}

// awaitStatus waits until the container is in a state.
func (b *bundle) awaitStatus(want specs.ContainerState) {
	b.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); b.status() != want; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("container is %s, and not %s after 20 s", b.status(), want)
		}
	}
}

func wantError(t testing.TB, what string, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: %v, want an error with %q", what, err, want)
	}
}

// A container goes from creating to created, running and stopped, and each
// operation works in its states only and changes nothing in the others.
func TestStates(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	ctx := t.Context()
	b := newBundle(t, "read wait; exit 3")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	b.stdin = r
	b.Annotations = map[string]string{"a": "b"}
	b.wantStatus("gone")
	c := b.create()
	r.Close()

	b.wantStatus(specs.StateCreated)
	if s := c.State(); s.ID != b.id || s.Pid != c.PID || s.Bundle != b.dir || s.Annotations["a"] != "b" || s.Version != b.Version {
		t.Errorf("state: %+v", s)
	}
	wantError(t, "delete", b.store.Delete(ctx, b.id, false), "not stopped: created")
	_, err = b.store.Create(ctx, b.options(nil))
	if !errors.Is(err, lifecycle.ErrExist) {
		t.Errorf("create again: %v", err)
	}
	b.wantStatus(specs.StateCreated)

	if err := b.store.Start(ctx, b.id); err != nil {
		t.Fatal(err)
	}
	b.wantStatus(specs.StateRunning)
	wantError(t, "start again", b.store.Start(ctx, b.id), "cannot start an already running container")
	wantError(t, "delete", b.store.Delete(ctx, b.id, false), "not stopped: running")
	if err := b.store.Kill(ctx, b.id, 0, false); err != nil {
		t.Errorf("kill with signal 0: %v", err)
	}
	b.wantStatus(specs.StateRunning)

	w.Close()
	b.awaitStatus(specs.StateStopped)
	if c, err := b.store.Load(b.id); err != nil || c.State().Pid != 0 {
		t.Errorf("a stopped container has pid %d, %v", c.State().Pid, err)
	}
	wantError(t, "start", b.store.Start(ctx, b.id), "cannot start a container that has stopped")
	if err := b.store.Kill(ctx, b.id, unix.SIGKILL, false); !errors.Is(err, lifecycle.ErrNotRunning) {
		t.Errorf("kill of a stopped container: %v", err)
	}
	if err := b.store.Kill(ctx, b.id, unix.SIGKILL, true); err != nil {
		t.Errorf("kill --all of a stopped container: %v", err)
	}
	if err := b.store.Delete(ctx, b.id, false); err != nil {
		t.Error(err)
	}
	b.wantStatus("gone")
	for what, err := range map[string]error{
		"delete": b.store.Delete(ctx, b.id, false), "start": b.store.Start(ctx, b.id), "kill": b.store.Kill(ctx, b.id, unix.SIGKILL, false),
	} {
		if !errors.Is(err, lifecycle.ErrNotExist) {
			t.Errorf("%s of what does not exist: %v", what, err)
		}
	}
	if err := b.store.Delete(ctx, b.id, true); err != nil {
		t.Errorf("delete --force of what does not exist: %v", err)
	}
}

// A container is creating until its process is there.
func TestCreating(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "true")
	b.Process.Terminal = true
	b.save()
	o := b.options(nil)
	o.Console = func() (*os.File, error) {
		b.wantStatus(specs.StateCreating)
		wantError(t, "start", b.store.Start(t.Context(), b.id), "cannot start a container in the creating state")
		if err := b.store.Kill(t.Context(), b.id, unix.SIGTERM, false); !errors.Is(err, lifecycle.ErrNotRunning) {
			t.Errorf("kill: %v", err)
		}
		wantError(t, "delete", b.store.Delete(t.Context(), b.id, false), "not stopped: creating")
		return nil, errors.New("no console today")
	}
	_, err := b.store.Create(t.Context(), o)
	wantError(t, "create", err, "no console today")
	b.wantStatus("gone")
}

// Signals reach the process, or with all, every process of the container.
func TestKill(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done")
	b.save()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := b.store.Run(t.Context(), b.options(w))
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 16)); err != nil { // the handler is set
		t.Fatal(err)
	}
	if err := b.store.Kill(t.Context(), b.id, unix.SIGTERM, true); err != nil {
		t.Error(err)
	}
	if status, err := p.Wait(); status != 5 || err != nil {
		t.Errorf("exit status %d, %v", status, err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}

	// Without a pid namespace, what the process leaves behind is ended with the container.
	b = newBundle(t, "sleep 1000 & sleep 1001 & echo; exit 0")
	b.without(specs.PIDNamespace)
	b.Mounts[0] = specs.Mount{Type: "bind", Source: "/proc", Destination: "/proc", Options: []string{"rbind"}}
	b.create()
	if err := b.store.Start(t.Context(), b.id); err != nil {
		t.Fatal(err)
	}
	b.awaitStatus(specs.StateStopped)
	if err := b.store.Delete(t.Context(), b.id, false); err != nil {
		t.Error(err)
	}
}

// Whatever order operations on one container come in, one at most starts it,
// each says what it found, and nothing is left in the end.
func TestConcurrentOperations(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	for range 10 {
		b := newBundle(t, "sleep 1000")
		b.create()
		var mu sync.Mutex
		started := 0
		allowed := []string{"container does not exist", "container not running", "already running container", "that has stopped", "it has been started"}
		var wg sync.WaitGroup
		do := func(what string, op func(context.Context) error) {
			wg.Go(func() {
				err := op(t.Context())
				mu.Lock()
				defer mu.Unlock()
				if err == nil && what == "start" {
					started++
				}
				if err == nil {
					return
				}
				for _, a := range allowed {
					if strings.Contains(err.Error(), a) {
						return
					}
				}
				t.Errorf("%s: %v", what, err)
			})
		}
		for range 3 {
			do("start", func(ctx context.Context) error { return b.store.Start(ctx, b.id) })
			do("kill", func(ctx context.Context) error { return b.store.Kill(ctx, b.id, unix.SIGKILL, false) })
			do("delete", func(ctx context.Context) error { return b.store.Delete(ctx, b.id, true) })
		}
		wg.Wait()
		if started > 1 {
			t.Errorf("started %d times", started)
		}
		b.wantStatus("gone")
	}
}

// Many callers create, start, kill and delete one name, again and again. Each is
// told what it found, and whoever creates has a container of its own: its program
// is the one that runs, or somebody has deleted it.
func TestStorm(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "sleep 1000")
	b.save()
	allowed := []string{"container does not exist", "container not running", "already running container", "that has stopped",
		"it has been started", "already exists", "in the creating state", "is not stopped: ", "container init died", "context deadline"}
	ctx := t.Context()
	operations := []func() error{
		func() error { _, err := b.store.Create(ctx, b.options(nil)); return err },
		func() error { _, err := b.store.Create(ctx, b.options(nil)); return err },
		func() error { return b.store.Start(ctx, b.id) },
		func() error { return b.store.Kill(ctx, b.id, unix.SIGTERM, false) },
		func() error { return b.store.Kill(ctx, b.id, unix.SIGKILL, true) },
		func() error { return b.store.Delete(ctx, b.id, false) },
		func() error { return b.store.Delete(ctx, b.id, true) },
		func() error {
			p, err := b.store.Run(ctx, b.options(nil))
			if err == nil {
				err = p.Close(ctx)
			}
			return err
		},
		func() (err error) {
			s := b.store
			s.Warn = func(m string) { err = errors.New(m) }
			_, lerr := s.List()
			return errors.Join(err, lerr)
		},
	}
	var wg sync.WaitGroup
	var started atomic.Int64
	for i := range operations {
		wg.Go(func() {
			// On a busy machine none may have got as far as a start by then.
			for begin := time.Now(); time.Since(begin) < 3*time.Second || started.Load() == 0 && time.Since(begin) < 30*time.Second; {
				err := operations[i]()
				if err != nil && !slices.ContainsFunc(allowed, func(a string) bool { return strings.Contains(err.Error(), a) }) {
					t.Errorf("operation %d: %v", i, err)
					return
				}
				switch i {
				case 2:
					if err == nil {
						started.Add(1)
					}
				case 3, 4, 6, 7: // leave the others time to get somewhere
					time.Sleep(time.Duration(rand.Int64N(int64(60 * time.Millisecond))))
				}
			}
		})
	}
	wg.Wait()
	if started.Load() == 0 {
		t.Error("no container was ever started")
	}
	if err := b.store.Delete(ctx, b.id, true); err != nil {
		t.Error(err)
	}
	b.wantStatus("gone")
}

// A record that can't be read says nothing about what it stands for, so that
// nothing is removed; a directory without one is what a killed create left.
func TestDeleteOfBrokenState(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "true")
	dir := filepath.Join(b.store.Root, b.id)
	for _, content := range []string{"", "{", `{"version": 99, "id": "` + b.id + `"}`} {
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(dir+"/state.json", []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
		wantError(t, "delete --force", b.store.Delete(t.Context(), b.id, true), "state.json")
		if _, err := os.Stat(dir + "/state.json"); err != nil {
			t.Error(err)
		}
	}
	if err := errors.Join(os.Remove(dir+"/state.json"), os.WriteFile(dir+"/state.json.new", nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := b.store.Delete(t.Context(), b.id, true); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// Without a pid namespace, SIGKILL ends what a pid namespace would end, too.
func TestKillWithoutPIDNamespace(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "sleep 1000 & sleep 1000")
	b.without(specs.PIDNamespace)
	b.Mounts[0] = specs.Mount{Type: "bind", Source: "/proc", Destination: "/proc", Options: []string{"rbind"}}
	b.create()
	if err := b.store.Start(t.Context(), b.id); err != nil {
		t.Fatal(err)
	}
	count := func() int {
		pids, err := b.store.Processes(b.id)
		if err != nil {
			t.Fatal(err)
		}
		return len(pids)
	}
	for deadline := time.Now().Add(20 * time.Second); count() < 2 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if err := b.store.Kill(t.Context(), b.id, unix.SIGKILL, false); err != nil {
		t.Error(err)
	}
	for deadline := time.Now().Add(20 * time.Second); count() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d processes stay", count())
		}
	}
	if err := b.store.Kill(t.Context(), b.id, unix.SIGKILL, false); !errors.Is(err, lifecycle.ErrNotRunning) {
		t.Errorf("kill of a stopped container: %v", err)
	}
	if err := b.store.Delete(t.Context(), b.id, false); err != nil {
		t.Error(err)
	}
}

// One of many creates of one name wins.
func TestConcurrentCreates(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "true")
	b.save()
	var wg sync.WaitGroup
	errs := make([]error, 6)
	for i := range errs {
		wg.Go(func() { _, errs[i] = b.store.Create(t.Context(), b.options(nil)) })
	}
	wg.Wait()
	made := 0
	for _, err := range errs {
		if err == nil {
			made++
		} else if !errors.Is(err, lifecycle.ErrExist) {
			t.Error(err)
		}
	}
	if made != 1 {
		t.Errorf("created %d times", made)
	}
	b.wantStatus(specs.StateCreated)
	if err := b.store.Delete(t.Context(), b.id, true); err != nil {
		t.Error(err)
	}
}

func TestNames(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "true")
	b.save()
	for _, id := range []string{"", ".", "..", "a/b", "../x", "a b", "ä", "a\n", strings.Repeat("x", 256)} {
		b.id = id
		_, err := b.store.Create(t.Context(), b.options(nil))
		wantError(t, "create", err, "invalid container ID")
		_, err = b.store.Load(id)
		wantError(t, "load", err, "invalid container ID")
		wantError(t, "delete", b.store.Delete(t.Context(), id, true), "invalid container ID")
	}
}

// List has every container, and says which it could not read.
func TestList(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "true")
	if all, err := b.store.List(); err != nil || len(all) != 0 {
		t.Errorf("no containers: %v, %v", all, err)
	}
	b.create()
	if err := os.MkdirAll(b.store.Root+"/broken", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.store.Root+"/broken/state.json", []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	var warnings []string
	b.store.Warn = func(m string) { warnings = append(warnings, m) }
	all, err := b.store.List()
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "broken/state.json") {
		t.Errorf("list: %v, %q", err, warnings)
	}
	if len(all) != 1 || all[0].ID != b.id {
		t.Errorf("containers: %v", all)
	}
	wantError(t, "delete", b.store.Delete(t.Context(), "broken", false), "broken/state.json")
}
