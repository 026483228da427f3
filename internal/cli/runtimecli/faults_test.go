package runtimecli_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
)

// Killed in any system call that others can notice, tare-runtime or the
// container's first process leaves nothing that delete --force does not remove.
func TestKilledInEachCall(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	strace := testenv.Tool(t, "strace")
	for _, c := range []struct {
		verbs []string // the last is killed
		hooks bool
		calls string // with the number of times that are tried
	}{
		{[]string{"create"}, false, "mkdirat:9 flock:1 renameat2:2 bind:1 listen:1 memfd_create:1 clone3:5 write:5 ppoll:1 close_range:1 mount_setattr:1 " +
			"fsmount:1 pivot_root:1 accept4:1 renameat:1"},
		{[]string{"create"}, true, "renameat2:3 pidfd_send_signal:1 ppoll:3 clone:1 clone3:3 wait4:1 futex:1 execve:3"},
		{[]string{"run"}, true, "execve:4 clone:1 clone3:4"},
		{[]string{"create", "start"}, true, "flock:1 connect:1 write:1 unlinkat:1 ppoll:1 clone3:3"},
		{[]string{"create", "start", "delete"}, true, "flock:1 pidfd_send_signal:1 unlinkat:6 clone3:3"},
	} {
		for entry := range strings.FieldsSeq(c.calls) {
			var times int
			call, count, _ := strings.Cut(entry, ":")
			if _, err := fmt.Sscan(count, &times); err != nil {
				t.Fatal(err)
			}
			for n := range times {
				b := newBundle(t, "sleep 1000")
				if c.hooks {
					hook := []specs.Hook{{Path: testenv.Tool(t, "true")}}
					b.Hooks = &specs.Hooks{CreateRuntime: hook, CreateContainer: hook, Poststart: hook, Poststop: hook}
				}
				b.prepare(c.verbs[:len(c.verbs)-1])
				ended := b.killIn(strace, c.verbs[len(c.verbs)-1], call, n+1)
				b.do("delete", "--force", "ID")
				ended()
				if _, err := os.Stat(filepath.Join(b.root, b.id)); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%v killed in %s %d: the state is still there: %v", c.verbs, call, n+1, err)
				}
			}
		}
	}
}

// killIn runs a verb that is killed when one of its threads, or of the processes
// that it makes, makes the nth call of a name. It returns when the verb is over;
// ended waits for its container, too.
func (b *bundle) killIn(strace, verb, call string, n int) (ended func()) {
	b.t.Helper()
	cmd := b.command(b.verb(verb)...)
	inject := fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, n)
	cmd.Args = slices.Concat([]string{strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace=" + call, "-e", inject}, cmd.Args)
	cmd.Path = strace
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait() // strace ends as what it runs does, which may be killed
	}()
	// strace stays as long as the container does, but not as its parent.
	for began := false; ; time.Sleep(time.Millisecond) {
		switch is, over := runs(cmd.Process.Pid, "tare-runtime"); {
		case over || began && !is:
			return func() { <-done }
		case is:
			began = true
		}
		select {
		case <-done:
			return func() {}
		default:
		}
	}
}

// runs says whether a process has a child that runs a program of that name, or
// is over itself.
func runs(pid int, name string) (is, over bool) {
	list, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for child := range strings.FieldsSeq(string(list)) {
		comm, err := os.ReadFile("/proc/" + child + "/comm")
		is = is || err == nil && strings.TrimSpace(string(comm)) == name
	}
	return is, err != nil
}

// A full disk under the state directory is an error of create, and nothing
// stays; or create finds room enough.
func TestFullDisk(t *testing.T) {
	if !testenv.PrivateMounts(t) {
		return
	}
	testenv.Leaks(t)
	b := newBundle(t, "true")
	if err := os.Mkdir(b.root, 0o755); err != nil {
		t.Fatal(err)
	}
	testenv.Run(t, "mount", "-t", "tmpfs", "-o", "nr_inodes=100,size=256k", "tmpfs", b.root)
	t.Cleanup(func() { testenv.Run(t, "umount", b.root) })
	full := 0
	for free := range 8 {
		fillUp(t, b.root, free)
		out, err := b.command("run", "ID").CombinedOutput()
		if err != nil {
			full++
			if !strings.Contains(string(out), "no space left on device") {
				t.Errorf("with %d pages: %v: %s", free, err, out)
			}
		} else if free == 0 {
			t.Error("the disk was not full")
		}
		if _, err := os.Stat(filepath.Join(b.root, b.id)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("with %d pages: left behind: %v", free, err)
		}
		b.do("delete", "--force", "ID")
		if err := os.Remove(filepath.Join(b.root, "fill")); err != nil {
			t.Fatal(err)
		}
	}
	if full == 0 || full == 8 {
		t.Errorf("%d of 8 found no room", full)
	}
}

// fillUp leaves some pages of a file system.
func fillUp(t *testing.T, dir string, free int) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page, size := make([]byte, os.Getpagesize()), int64(0)
	for err == nil {
		_, err = f.Write(page)
		size += int64(len(page))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if err := f.Truncate(size - int64(free+1)*int64(len(page))); err != nil {
		t.Fatal(err)
	}
}

// Five hundred containers, created and deleted side by side, leave nothing.
func TestManyContainers(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	const batch, batches = 20, 25
	bundles := make([]*bundle, batch)
	for i := range bundles {
		bundles[i] = newBundle(t, "sleep 1000")
		if i > 0 {
			bundles[i].root = bundles[0].root // one state directory
		}
	}
	each := func(do func(b *bundle)) {
		var wg sync.WaitGroup
		for _, b := range bundles {
			wg.Go(func() { do(b) })
		}
		wg.Wait()
	}
	for range batches {
		each(func(b *bundle) { b.quiet("create", "ID") })
		// Each way to an end: of a created container, of a running one, in two steps and in one.
		each(func(b *bundle) {
			switch b.id[len(b.id)-1] % 3 {
			case 1:
				b.quiet("start", "ID")
			case 2:
				b.quiet("start", "ID")
				b.quiet("kill", "ID", "KILL")
			}
			b.quiet("delete", "--force", "ID")
		})
	}
	left, err := os.ReadDir(bundles[0].root)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// quiet runs a verb in a goroutine of its own.
func (b *bundle) quiet(args ...string) {
	cmd := b.command(args...)
	if err := cmd.Run(); err != nil {
		b.t.Errorf("%s: %v", cmd, err)
	}
}

// A container whose first process is killed before start has stopped, as any
// other.
func TestInitKilledBeforeStart(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "sleep 1000")
	b.do("create", "ID")
	if err := unix.Kill(b.state().Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.awaitStopped()
	var exit *exec.ExitError
	if out, err := b.command("start", "ID").CombinedOutput(); !errors.As(err, &exit) || !strings.Contains(string(out), "cannot start a container that has stopped") {
		t.Errorf("start: %v: %s", err, out)
	}
	if out, err := b.command("kill", "ID").CombinedOutput(); !errors.As(err, &exit) || !strings.Contains(string(out), "container not running") {
		t.Errorf("kill: %v: %s", err, out)
	}
	b.do("kill", "--all", "ID", "KILL")
	b.do("delete", "ID")
}

// A signal that ends programs ends a created container, whose program has not
// begun; others are lost on it.
func TestSignalsOfACreatedContainer(t *testing.T) {
	testenv.Hangups(t)
	testenv.Root(t)
	testenv.Leaks(t)
	for signal, ends := range map[string]bool{"TERM": true, "INT": true, "HUP": true, "QUIT": true, "USR1": false, "0": false, "KILL": true} {
		b := newBundle(t, "sleep 1000")
		b.do("create", "ID")
		b.do("kill", "ID", signal)
		if ends {
			b.awaitStopped()
			b.do("delete", "ID")
			continue
		}
		if s := b.state(); s.Status != specs.StateCreated {
			t.Errorf("after %s: %s", signal, s.Status)
		}
		b.do("delete", "--force", "ID")
	}
}
