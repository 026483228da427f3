package lifecycle_test

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/testenv"
	"github.com/tare-oci/tare/runtime/host"
	"github.com/tare-oci/tare/runtime/lifecycle"
	"github.com/tare-oci/tare/runtime/spec"
)

// A bundle is a container to be: a root file system with busybox, and runc's
// example configuration as a test changes it.
type bundle struct {
	*specs.Spec
	t       testing.TB
	id      string
	dir     string
	store   lifecycle.Store
	noPivot bool
	// stdin is what the container reads; nothing, unless a test sets it.
	stdin *os.File
}

// applets are the commands of the root file system.
const applets = "cat chmod chown find rm cut dd echo env false grep head hostname id ifconfig ionice kill ls mkdir mount mountpoint nc nice readlink " +
	"sed seq sh sleep sort stat stty sync sysctl tail test touch tr true tty umount uname wc"

// newBundle makes a bundle whose process runs a shell script.
func newBundle(t testing.TB, script string) *bundle {
	t.Helper()
	b := &bundle{Spec: spec.Example(false), t: t, id: testenv.Name(t), dir: t.TempDir()}
	b.store.Root = filepath.Join(t.TempDir(), "state")
	busybox, err := os.ReadFile(testenv.Tool(t, "busybox"))
	if err != nil {
		t.Fatal(err)
	}
	b.write("rootfs/bin/busybox", string(busybox), 0o755)
	for name := range strings.FieldsSeq(applets) {
		if err := os.Symlink("busybox", b.path("rootfs/bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	b.write("rootfs/etc/passwd", "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n", 0o644)
	// The container's user must get through to the files of the test.
	for dir := b.dir; strings.HasPrefix(dir, os.TempDir()+"/"); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b.Process.Terminal = false
	b.Process.Args = []string{"sh", "-c", script}
	b.Process.Env = []string{"PATH=/bin"}
	b.Root.Readonly = false
	return b
}

// path is that of a file in the bundle.
func (b *bundle) path(names ...string) string {
	return filepath.Join(append([]string{b.dir}, names...)...)
}

// write makes a file of the bundle, and its directories.
func (b *bundle) write(name, content string, mode os.FileMode) {
	b.t.Helper()
	b.mkdir(filepath.Dir(name))
	if err := os.WriteFile(b.path(name), []byte(content), mode); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bundle) mkdir(name string) {
	b.t.Helper()
	if err := os.MkdirAll(b.path(name), 0o755); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bundle) symlink(target, name string) {
	b.t.Helper()
	b.mkdir(filepath.Dir(name))
	if err := os.Symlink(target, b.path(name)); err != nil {
		b.t.Fatal(err)
	}
}

// mount adds a mount; options are separated by commas.
func (b *bundle) mount(typ, source, destination, options string) {
	m := specs.Mount{Type: typ, Source: source, Destination: destination}
	if options != "" {
		m.Options = strings.Split(options, ",")
	}
	b.Mounts = append(b.Mounts, m)
}

// namespace makes a new namespace, or joins the one at path.
func (b *bundle) namespace(kind specs.LinuxNamespaceType, path string) {
	for i := range b.Linux.Namespaces {
		if b.Linux.Namespaces[i].Type == kind {
			b.Linux.Namespaces[i].Path = path
			return
		}
	}
	b.Linux.Namespaces = append(b.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: path})
}

// without leaves a kind of namespace as the host's.
func (b *bundle) without(kind specs.LinuxNamespaceType) {
	var rest []specs.LinuxNamespace
	for _, ns := range b.Linux.Namespaces {
		if ns.Type != kind {
			rest = append(rest, ns)
		}
	}
	b.Linux.Namespaces = rest
}

// userNamespace maps ids of the container to those of the host from 100000 on,
// and gives the root file system to the container's root.
func (b *bundle) userNamespace() {
	b.t.Helper()
	testenv.Run(b.t, "chown", "-R", "100000:100000", b.path("rootfs"))
	b.namespace(specs.UserNamespace, "")
	b.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 2000}}
	b.Linux.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 2000}}
}

// save writes config.json.
func (b *bundle) save() {
	b.t.Helper()
	data, err := json.Marshal(b.Spec)
	if err != nil {
		b.t.Fatal(err)
	}
	b.write("config.json", string(data), 0o644)
}

// options are what creates the container, with out as its standard output and error.
func (b *bundle) options(out *os.File) lifecycle.CreateOptions {
	return lifecycle.CreateOptions{ID: b.id, Bundle: b.dir, Stdio: [3]*os.File{b.stdin, out, out}, NoPivot: b.noPivot,
		Warn: func(message string) { b.t.Log("warning:", message) }}
}

// run runs the container to its end and returns what it wrote, without
// trailing space, and its exit status.
func (b *bundle) run() (out string, status int) {
	b.t.Helper()
	out, status, err := b.tryRun(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return out, status
}

func (b *bundle) tryRun(ctx context.Context) (out string, status int, err error) {
	b.t.Helper()
	b.save()
	w, text := output(b.t)
	p, err := b.store.Run(ctx, b.options(w))
	w.Close()
	if err != nil {
		return text(), 0, err
	}
	status, err = p.Wait()
	if cerr := p.Close(context.Background()); cerr != nil {
		b.t.Error(cerr)
	}
	return text(), status, err
}

// create makes the container and leaves it waiting for start. It is deleted
// when the test ends.
func (b *bundle) create() *lifecycle.Container {
	b.t.Helper()
	b.save()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	defer null.Close()
	o := b.options(null)
	if o.Stdio[0] == nil {
		o.Stdio[0] = null
	}
	c, err := b.store.Create(b.t.Context(), o)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := b.store.Delete(context.Background(), b.id, true); err != nil {
			b.t.Error(err)
		}
	})
	return c
}

// output makes a pipe; text closes nothing, and returns what came through it
// once all writers are gone.
func output(t testing.TB) (w *os.File, text func() string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan string, 1)
	go func() {
		defer r.Close()
		data, _ := io.ReadAll(r) // a pipe cannot fail
		read <- strings.TrimRight(string(data), " \n")
	}()
	return w, func() string {
		select {
		case s := <-read:
			return s
		case <-time.After(20 * time.Second):
			t.Fatal("somebody still holds the container's output")
			return ""
		}
	}
}

// lines puts the lines of a test's expectation together.
func lines(l ...string) string { return strings.Join(l, "\n") }

// machine is what this machine can do.
func machine(t testing.TB) host.Facts {
	t.Helper()
	testenv.Root(t)
	f, err := host.Probe()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func ptr[T any](v T) *T { return &v }
