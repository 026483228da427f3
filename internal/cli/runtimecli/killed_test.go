package runtimecli_test

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/testenv"
)

// Wherever tare-runtime is killed, delete --force removes what there is of the
// container, and what it does not know of ends by itself: Leaks looks.
func TestKilledAtAnyMoment(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	for _, verbs := range [][]string{{"create"}, {"run"}, {"create", "start"}, {"create", "start", "delete"}} {
		// How long the last verb takes, to spread the moments over it.
		b := newBundle(t, "sleep 1000")
		took := time.Hour
		for range 3 {
			begin := b.prepare(verbs)
			took = min(took, time.Since(begin))
			b.do("delete", "--force", "ID")
		}
		tries := 12
		if testing.Short() {
			tries = 4
		}
		for i := range tries {
			b := newBundle(t, "sleep 1000")
			b.prepare(verbs[:len(verbs)-1])
			cmd := b.command(b.verb(verbs[len(verbs)-1])...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			moment := time.Duration(rand.Int64N(int64(took)))
			time.Sleep(moment)
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // it was killed, or was quicker
			b.do("delete", "--force", "ID")
			if _, err := os.Stat(filepath.Join(b.root, b.id)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%v killed after %v, try %d: the state is still there: %v", verbs, moment, i, err)
			}
			// The name is free for a container that works.
			if i%4 == 0 {
				b.Process.Args = []string{"true"}
				b.do("run", "ID")
			}
		}
	}
}

// prepare runs verbs to their end and returns when the last one began.
func (b *bundle) prepare(verbs []string) (begin time.Time) {
	b.t.Helper()
	for _, verb := range verbs {
		begin = time.Now()
		b.do(b.verb(verb)...)
	}
	return begin
}

// verb is the command line of a verb that does not wait for the container.
func (b *bundle) verb(name string) []string {
	switch name {
	case "run":
		return []string{"run", "--detach", "--pid-file", b.root + ".pid", "ID"}
	case "create":
		return []string{"create", "--pid-file", b.root + ".pid", "ID"}
	case "delete":
		return []string{"delete", "--force", "ID"}
	}
	return []string{name, "ID"}
}

// A container that runs does not need the tare-runtime that made it.
func TestContainerSurvivesItsCaller(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "echo $$ >/alive; sleep 1000")
	cmd := b.command("run", "ID")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		if _, err := os.Stat(b.dir + "/rootfs/alive"); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the container does not begin")
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if s := b.state(); s.Status != specs.StateRunning || s.Pid == 0 {
		t.Errorf("container is %s, pid %d", s.Status, s.Pid)
	}
	b.do("kill", "ID", "KILL")
	b.await(specs.StateStopped)
	b.do("delete", "ID")
}
