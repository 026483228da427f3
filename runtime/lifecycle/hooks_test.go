package lifecycle_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
	"github.com/tare-oci/tare/runtime/lifecycle"
)

// hookKinds are all kinds of hooks, in the order they run in.
var hookKinds = []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}

// list returns where the hooks of a kind are.
func (b *bundle) list(kind string) *[]specs.Hook {
	if b.Hooks == nil {
		b.Hooks = &specs.Hooks{}
	}
	return map[string]*[]specs.Hook{
		"prestart":      &b.Hooks.Prestart, //nolint:staticcheck // deprecated, not gone
		"createRuntime": &b.Hooks.CreateRuntime, "createContainer": &b.Hooks.CreateContainer,
		"startContainer": &b.Hooks.StartContainer, "poststart": &b.Hooks.Poststart, "poststop": &b.Hooks.Poststop,
	}[kind]
}

// hook adds a hook that runs a shell script. Its path is one that is there on
// both sides of pivot_root: the host's busybox is copied to the same place.
func (b *bundle) hook(kind, script string) *specs.Hook {
	list := b.list(kind)
	*list = append(*list, specs.Hook{Path: b.shell(), Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin:/usr/bin"}})
	return &(*list)[len(*list)-1]
}

// shell is the path of a shell on the host and in the container.
func (b *bundle) shell() string {
	b.t.Helper()
	busybox := testenv.Tool(b.t, "busybox")
	inside := b.path("rootfs", busybox)
	if _, err := os.Lstat(inside); err != nil {
		if err := os.MkdirAll(filepath.Dir(inside), 0o755); err != nil {
			b.t.Fatal(err)
		}
		testenv.Run(b.t, "cp", busybox, inside)
	}
	return busybox
}

// log is a file that hooks of both sides can append to: it lies in the root
// file system, where hooks of the host find it by its whole path.
func (b *bundle) log() (outside, inside string) { return b.path("rootfs/log"), "/log" }

// newLog makes the log, which everybody may write to.
func (b *bundle) newLog() {
	b.t.Helper()
	b.write("rootfs/log", "", 0o666)
	if err := os.Chmod(b.path("rootfs/log"), 0o666); err != nil {
		b.t.Fatal(err)
	}
	// In a user namespace the way to the root has to be open for hooks, as with runc.
	if err := os.Chmod(os.TempDir(), 0o755); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bundle) readLog() string {
	b.t.Helper()
	data, err := os.ReadFile(b.path("rootfs/log"))
	if err != nil {
		b.t.Fatal(err)
	}
	return string(data)
}

// where a hook of a kind finds the log.
func (b *bundle) logOf(kind string) string {
	outside, inside := b.log()
	if kind == "startContainer" {
		return inside
	}
	return outside
}

// Hooks of all kinds run in their order, with the container's state at that
// time on standard input, with their own arguments and environment only.
func TestHooks(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	for _, name := range []string{"create and start", "run", "user namespace", "no pid namespace"} {
		t.Run(name, func(t *testing.T) {
			b := newBundle(t, "echo program >> /log; sleep 1000")
			b.Annotations = map[string]string{"key": `va"lue`}
			if name == "no pid namespace" {
				b.without(specs.PIDNamespace)
				b.Mounts[0] = specs.Mount{Type: "bind", Source: "/proc", Destination: "/proc", Options: []string{"rbind"}}
			}
			for _, kind := range hookKinds {
				script := fmt.Sprintf(`read -r state; echo "%s $0 $*|$(env|grep -v -e ^PWD= -e ^SHLVL= -e ^_= |tr '\n' ' ')|$state" >> %s`, kind, b.logOf(kind))
				h := b.hook(kind, script)
				h.Args = append(h.Args, "me", "a  b")
				h.Env = append(h.Env, "ONLY=this")
				b.hook(kind, fmt.Sprintf("echo second %s >> %s", kind, b.logOf(kind)))
			}
			b.newLog()
			if name == "user namespace" {
				b.userNamespace()
			}
			pid := 0
			if name == "run" {
				b.save()
				p, err := b.store.Run(t.Context(), b.options(nil))
				if err != nil {
					t.Fatal(err)
				}
				pid = p.PID
				if err := p.Close(t.Context()); err != nil {
					t.Error(err)
				}
			} else {
				pid = b.create().PID
				if got := b.readLog(); strings.Contains(got, "startContainer") || !strings.HasSuffix(got, "second createContainer\n") {
					t.Errorf("after create: %s", got)
				}
				if err := b.store.Start(t.Context(), b.id); err != nil {
					t.Fatal(err)
				}
				// The program may write its line later.
				if got := strings.TrimSuffix(b.readLog(), "program\n"); !strings.HasSuffix(got, "second poststart\n") {
					t.Errorf("after start: %s", got)
				}
				if err := b.store.Delete(t.Context(), b.id, true); err != nil {
					t.Error(err)
				}
			}
			b.checkHookLog(pid, name == "no pid namespace")
		})
	}
}

// checkHookLog reads what TestHooks' hooks wrote.
func (b *bundle) checkHookLog(pid int, sharedPID bool) {
	b.t.Helper()
	var order []string
	for line := range strings.Lines(b.readLog()) {
		line = strings.TrimSpace(line)
		kind, rest, _ := strings.Cut(line, " ")
		if kind == "second" {
			kind, rest = rest, ""
		}
		if kind != "program" { // which runs beside poststart
			order = append(order, kind)
		}
		if rest == "" {
			continue
		}
		parts := strings.SplitN(rest, "|", 3)
		if parts[0] != "me a  b" || parts[1] != "PATH=/bin:/usr/bin ONLY=this " && parts[1] != "ONLY=this PATH=/bin:/usr/bin " {
			b.t.Errorf("%s: arguments and environment: %q", kind, parts[:2])
		}
		want := specs.State{Version: b.Version, ID: b.id, Bundle: b.dir, Annotations: b.Annotations, Pid: pid, Status: map[string]specs.ContainerState{
			"prestart": "creating", "createRuntime": "creating", "createContainer": "creating", "startContainer": "created",
			"poststart": "running", "poststop": "stopped"}[kind]}
		switch {
		case kind == "poststop":
			want.Pid = 0
		case !sharedPID && (kind == "createContainer" || kind == "startContainer"):
			want.Pid = 1
		}
		var got specs.State
		if err := json.Unmarshal([]byte(parts[2]), &got); err != nil {
			b.t.Errorf("%s: %v: %s", kind, err, parts[2])
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			b.t.Errorf("%s: state %v, want %v", kind, got, want)
		}
	}
	var want []string
	for _, kind := range hookKinds {
		want = append(want, kind, kind)
	}
	if fmt.Sprint(order) != fmt.Sprint(want) {
		b.t.Errorf("order %v\nwant  %v", order, want)
	}
}

// Each kind of hook runs in its namespaces: the runtime's, or the container's,
// with its mounts where the bundle has its root, or as its root.
func TestHookNamespaces(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "sleep 1000")
	b.mkdir("volume")
	b.write("volume/file", "in the volume", 0o644)
	b.mount("bind", "volume", "/volume", "rbind")
	b.Process.User = specs.User{UID: 1000, GID: 1000}
	b.newLog()
	outer := b.path("rootfs/volume/file")
	for _, kind := range hookKinds {
		file := outer
		if kind == "startContainer" {
			file = "/volume/file"
		}
		b.hook(kind, fmt.Sprintf("echo %s $(readlink /proc/self/ns/net) $(cat %s 2>/dev/null || echo nothing) uid $(id -u) cwd $(pwd) fds $(ls /proc/self/fd|wc -l) >> %s",
			kind, file, b.logOf(kind)))
	}
	// The network namespace is there for the hooks that configure it.
	net := b.path("net")
	b.hook("createRuntime", fmt.Sprintf("pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); readlink /proc/$pid/ns/net > %s", net))
	// The bundle's file system is where createContainer hooks change the container.
	b.hook("createContainer", fmt.Sprintf("echo new > %s", b.path("rootfs/made")))
	b.create()
	if err := b.store.Start(t.Context(), b.id); err != nil {
		t.Fatal(err)
	}
	if err := b.store.Delete(t.Context(), b.id, true); err != nil {
		t.Fatal(err)
	}
	host, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	inner, err := os.ReadFile(net)
	if err != nil {
		t.Fatal(err)
	}
	ours, _ := os.Getwd()
	for line := range strings.Lines(b.readLog()) {
		f := strings.Fields(line)
		kind := f[0]
		ns, content, uid, cwd := host, "nothing", "0", ours
		if kind == "createContainer" || kind == "startContainer" {
			ns, content, cwd = strings.TrimSpace(string(inner)), "in the volume", "/"
		}
		if kind == "createContainer" {
			cwd = b.path("rootfs")
		}
		if kind == "startContainer" {
			uid = "1000"
		}
		// Descriptors are the three, and the directory that ls reads.
		if want := fmt.Sprintf("%s %s %s uid %s cwd %s fds 4\n", kind, ns, content, uid, cwd); line != want {
			t.Errorf("got  %swant %s", line, want)
		}
	}
	if n := strings.Count(b.readLog(), "\n"); n != len(hookKinds) {
		t.Errorf("%d lines, want %d", n, len(hookKinds))
	}
	if _, err := os.Stat(b.path("rootfs/made")); err != nil {
		t.Error(err)
	}
}

// A hook of the runtime may enter the container's mount namespace and mount
// below the root's path, as NVIDIA's does.
func TestHookMountsInTheContainer(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "cat /mnt/file")
	b.write("device/file", "from a hook\n", 0o644)
	b.mkdir("rootfs/mnt")
	h := b.hook("prestart", fmt.Sprintf(`pid=$(sed 's/.*"pid":\([0-9]*\).*/\1/'); %s -t "$pid" -m mount --bind %s %s`,
		testenv.Tool(t, "nsenter"), b.path("device"), b.path("rootfs/mnt")))
	h.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	if out, _ := b.run(); out != "from a hook" {
		t.Errorf("got %q", out)
	}
}

// Hooks find the root where the bundle has it, also where its mount is a peer of
// the host's, and the host does not get it.
func TestHooksUnderASharedRoot(t *testing.T) {
	if !testenv.PrivateMounts(t) {
		return
	}
	testenv.Leaks(t)
	b := newBundle(t, "true")
	b.newLog()
	testenv.Run(t, "mount", "--bind", b.dir, b.dir)
	testenv.Run(t, "mount", "--make-shared", b.dir)
	t.Cleanup(func() { testenv.Run(t, "umount", "-R", b.dir) })
	b.Linux.RootfsPropagation = "rshared"
	b.mount("tmpfs", "tmpfs", "/t", "")
	outside, _ := b.log()
	b.hook("createContainer", fmt.Sprintf("mountpoint %s >> %s", b.path("rootfs/t"), outside))
	b.hook("createRuntime", fmt.Sprintf("grep -c %s /proc/self/mountinfo >> %s || true", b.path("rootfs"), outside))
	b.run()
	if want := "0\n" + b.path("rootfs/t") + " is a mountpoint\n"; b.readLog() != want {
		t.Errorf("got %q, want %q", b.readLog(), want)
	}
}

// A hook that fails is an error that says so, and ends the container; the
// hooks after its deletion run, except where it has not come to be.
func TestHookFailures(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	for _, kind := range hookKinds[:5] {
		for how, c := range map[string]struct {
			set  func(h *specs.Hook)
			want string
		}{
			"exit":    {func(h *specs.Hook) { h.Args[2] = "echo out; echo problem >&2; exit 3" }, "exit status 3"},
			"signal":  {func(h *specs.Hook) { h.Args[2] = "kill -9 $$" }, "signal: "},
			"missing": {func(h *specs.Hook) { h.Path = "/no/such/hook" }, "no such file or directory"},
			"timeout": {func(h *specs.Hook) { h.Args[2], h.Timeout = "sleep 1000", ptr(1) }, "hook ran past specified timeout of 1.0s"},
		} {
			for _, verb := range []string{"create", "run"} {
				if how == "timeout" && verb == "run" {
					continue // a second each, and the same
				}
				t.Run(kind+"/"+how+"/"+verb, func(t *testing.T) {
					b := newBundle(t, "echo ran >> /log; sleep 1000")
					b.newLog()
					b.hook(kind, "true")
					c.set(b.hook(kind, ""))
					b.hook(kind, "echo after >> "+b.logOf(kind))
					b.hook("poststop", "echo poststop >> "+b.logOf("poststop"))
					b.save()
					err := b.tryStart(verb)
					wantError(t, verb, err, fmt.Sprintf("error running %s hook #1: ", kind))
					wantError(t, verb, err, c.want)
					if how == "exit" && kind != "startContainer" {
						wantError(t, verb, err, "stdout: out, stderr: problem")
					}
					b.wantStatus("gone")
					got := b.readLog()
					if want := "poststop\n"; !strings.HasSuffix(got, want) || strings.Contains(got, "after") ||
						kind != "poststart" && strings.Contains(got, "ran") {
						t.Errorf("log %q", got)
					}
				})
			}
		}
	}
}

// tryStart brings the container to the point where its program runs.
func (b *bundle) tryStart(verb string) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	defer null.Close()
	o := b.options(null)
	o.Stdio[0] = null
	if verb == "run" {
		p, err := b.store.Run(b.t.Context(), o)
		if err == nil {
			b.t.Error(p.Close(context.Background()))
		}
		return err
	}
	if _, err := b.store.Create(b.t.Context(), o); err != nil {
		return err
	}
	return b.store.Start(b.t.Context(), b.id)
}

// A poststop hook that fails is a warning, and the others run.
func TestPoststopWarns(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "true")
	b.newLog()
	b.hook("poststop", "echo bad >&2; exit 1")
	b.hook("poststop", "echo here >> "+b.logOf("poststop"))
	var warnings []string
	b.store.Warn = func(m string) { warnings = append(warnings, m) }
	b.create()
	// The bundle may be gone by the time.
	if err := os.Remove(b.path("config.json")); err != nil {
		t.Fatal(err)
	}
	if err := b.store.Delete(t.Context(), b.id, true); err != nil {
		t.Error(err)
	}
	if b.readLog() != "here\n" || len(warnings) != 1 || !strings.Contains(warnings[0], "error running poststop hook #0: exit status 1, stdout: , stderr: bad") {
		t.Errorf("log %q, warnings %q", b.readLog(), warnings)
	}
}

// A hook may leave a process behind that holds its output, write more than a
// pipe holds, and read nothing.
func TestHookOutput(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "true")
	for _, kind := range hookKinds {
		// What stays in the container ends with it, the rest by itself.
		b.hook(kind, "sleep 2 & for i in $(seq 300); do printf %01000d $i; done")
	}
	b.Annotations = map[string]string{"large": strings.Repeat("x", 200<<10)}
	begin := time.Now()
	b.run()
	if took := time.Since(begin); took > 7*time.Second {
		t.Errorf("took %v", took)
	}
	// Of what a failed hook says, the end is told.
	b = newBundle(t, "true")
	b.hook("createContainer", "for i in $(seq 300); do printf %01000d $i >&2; done; echo THE END >&2; false")
	_, _, err := b.tryRun(t.Context())
	wantError(t, "run", err, "THE END")
	if len(err.Error()) > 6000 {
		t.Errorf("a message of %d bytes", len(err.Error()))
	}
}

// While hooks of create run, the container is creating: others wait for it, or
// are told so; a hook may ask for its state.
func TestCreatingWithHooks(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "sleep 1000")
	fifo := b.path("fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	b.hook("createRuntime", "cat "+fifo)
	b.save()
	done := make(chan error, 1)
	go func() {
		_, err := b.store.Create(t.Context(), b.options(nil))
		done <- err
	}()
	w, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	b.wantStatus(specs.StateCreating)
	wantError(t, "start", b.store.Start(t.Context(), b.id), "cannot start a container in the creating state")
	wantError(t, "delete", b.store.Delete(t.Context(), b.id, false), "not stopped: creating")
	_, err = b.store.Create(t.Context(), b.options(nil))
	if !errors.Is(err, lifecycle.ErrExist) {
		t.Errorf("create: %v", err)
	}
	deleted := make(chan error, 1)
	go func() { deleted <- b.store.Delete(t.Context(), b.id, true) }()
	time.Sleep(20 * time.Millisecond)
	b.wantStatus(specs.StateCreating)
	w.Close()
	if err := <-done; err != nil {
		t.Errorf("create: %v", err)
	}
	if err := <-deleted; err != nil {
		t.Errorf("delete: %v", err)
	}
	b.wantStatus("gone")
}
