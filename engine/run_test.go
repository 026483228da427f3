package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/internal/testenv"
	"github.com/tare-oci/tare/runtime/host"
)

// small is an image with busybox in a layout.
func small(t testing.TB) string { return "oci:" + testLayout(t, "small") + ":latest" }

// TestRunFromRegistry is the way that everything here is for: from a registry to
// a running process, with an image of Debian.
func TestRunFromRegistry(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	addr := testenv.Registry(t)
	testenv.PushLayout(t, addr, testLayout(t, "medium"), "latest", "medium")
	testenv.PushLayout(t, addr, testLayout(t, "multiarch"), "latest", "busybox:v1")
	e := newEngine(t)

	out := mustOutput(t, e, RunOptions{Image: addr + "/medium", Args: []string{"cat", "/etc/os-release"}})
	if !strings.Contains(out, "Debian GNU/Linux") {
		t.Errorf("os-release of medium: %q", out)
	}
	checkClean(t, e)

	// From now on the store has it all.
	offline := PullOptions{Registry: noRegistry{t}}
	for _, name := range []string{addr + "/medium", addr + "/medium:latest"} {
		_, status, err := output(t, e, RunOptions{Image: name, Pull: offline, Args: []string{"sh", "-c", "exit 42"}})
		if status != 42 || err != nil {
			t.Errorf("second run of %s: status %d, %v; want 42", name, status, err)
		}
	}
	img, err := e.Resolve(t.Context(), addr+"/medium", nil)
	if err != nil {
		t.Fatal(err)
	}
	byDigest := RunOptions{Image: img.Manifest.Config.Digest.Encoded()[:12], Pull: offline, Args: []string{"true"}}
	mustOutput(t, e, byDigest)

	// An index: the manifest for this platform is chosen, and the name stays
	// that of the index.
	if img, err = e.Pull(t.Context(), addr+"/busybox:v1", PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if img.Target.MediaType != v1.MediaTypeImageIndex || img.Config.Architecture != "amd64" {
		t.Errorf("pulled %s for %s, want the index for amd64", img.Target.MediaType, img.Config.Architecture)
	}
	mustOutput(t, e, RunOptions{Image: addr + "/busybox:v1", Pull: offline, Args: []string{"true"}})
	other, err := e.Pull(t.Context(), addr+"/busybox:v1", PullOptions{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}})
	if err != nil || other.Config.Architecture != "arm64" || other.Target.Digest != img.Target.Digest {
		t.Errorf("pull for arm64: %v for %s", err, other.Config.Architecture)
	}
	checkStore(t, e, addr)
	checkClean(t, e)
}

// checkStore looks at the store with skopeo, and removes what is in it.
func checkStore(t *testing.T, e *Engine, addr string) {
	t.Helper()
	out := testenv.Run(t, "skopeo", "inspect", "--config", "--raw", "oci:"+e.ImagesDir()+":"+addr+"/medium:latest")
	if !strings.Contains(out, `"architecture":"amd64"`) {
		t.Errorf("skopeo inspect: %s", out)
	}
	images, err := e.Images(t.Context())
	if err != nil || len(images) != 2 {
		t.Fatalf("%d images, %v; want 2", len(images), err)
	}
	for _, img := range images {
		if img.Image == nil || img.SizeBytes == 0 {
			t.Errorf("image %s: %+v", img.Name, img)
		}
	}
	if name, err := e.Remove(t.Context(), addr+"/medium"); err != nil || name != addr+"/medium:latest" {
		t.Errorf("remove: %q, %v", name, err)
	}
	would, err := e.GC(t.Context(), GCOptions{DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	did, err := e.GC(t.Context(), GCOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(would) != fmt.Sprint(did) {
		t.Errorf("dry run said %v, gc did %v", would, did)
	}
	if len(did.Snapshots) != 3 || len(did.Blobs) != 5 {
		t.Errorf("gc removed %d snapshots and %d blobs, want 3 and 5", len(did.Snapshots), len(did.Blobs))
	}
	if _, err := e.Resolve(t.Context(), addr+"/medium", nil); !errors.Is(err, ErrNoImage) {
		t.Errorf("resolve what was removed: %v", err)
	}
}

// TestContainerIsAsTheOptionsSay looks from inside.
func TestContainerIsAsTheOptionsSay(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	e := newEngine(t)
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "file"), []byte("from the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "layout")
	makeImage(t, dir, "accounts", testLayout(t, "small")+":latest", func(c *v1.Image) {
		c.Config.User = "app"
		c.Config.WorkingDir = "/srv"
		c.Config.Env = append(c.Config.Env, "FROM=image", "KEPT=yes")
		c.Config.Volumes = map[string]struct{}{"/data": {}}
	}, []file{
		{name: "etc/passwd", content: "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n", mode: 0o644},
		{name: "etc/group", content: "root:x:0:\nextra:x:2000:app,root\nother:x:2001:root\n", mode: 0o644},
		{name: "srv/", mode: 0o755}, {name: "data/", mode: 0o700, uid: 1000}, {name: "data/seed", content: "seed", mode: 0o600, uid: 1000},
	})
	accounts := "oci:" + dir + ":accounts"
	for _, c := range []struct {
		name   string
		o      RunOptions
		script string
		want   string
	}{
		{"image's user and groups", RunOptions{Image: accounts}, "id -u; id -g; id -G; pwd; echo $HOME", "1000\n1001\n1001 2000\n/srv\n/home/app"},
		{"user and group", RunOptions{Image: accounts, User: "app:other"}, "id -u; id -g; id -G", "1000\n2001\n2001"},
		{"numbers", RunOptions{Image: accounts, User: "5:6"}, "id -u; id -g; id -G", "5\n6\n6"},
		{"environment", RunOptions{Image: accounts, Env: []string{"FROM=me", "KEPT", "NEW=1"}}, "echo $FROM $NEW ${KEPT-gone}", "me 1 gone"},
		{"image's volume", RunOptions{Image: accounts, ReadOnly: true},
			"cat /data/seed; echo; echo x >/data/new && cat /data/new; stat -c %a /data", "seed\nx\n700"},
		{"read-only", RunOptions{Image: small(t), ReadOnly: true}, "touch /x 2>/dev/null || echo no", "no"},
		{"writable", RunOptions{Image: small(t)}, "touch /x && ls /x", "/x"},
		{"volume", RunOptions{Image: small(t), Volumes: []string{host + ":/mnt/here"}}, "cat /mnt/here/file; echo back >/mnt/here/back", "from the host"},
		{"read-only volume", RunOptions{Image: small(t), Volumes: []string{host + ":/h:ro"}}, "touch /h/x 2>/dev/null || echo no", "no"},
		{"volume of a file", RunOptions{Image: small(t), Volumes: []string{host + "/file:/etc/f:ro"}}, "cat /etc/f", "from the host"},
		{"hostname", RunOptions{Image: small(t), Hostname: "box"}, "hostname; cat /etc/hostname; grep -c box /etc/hosts; echo $HOSTNAME", "box\nbox\n1\nbox"},
		{"no network", RunOptions{Image: small(t)}, "ls /sys/class/net | tr '\\n' ' '; ping -c1 -w1 127.0.0.1 >/dev/null && echo up", "lo up"},
		{"the host's network", RunOptions{Image: small(t), Network: "host"}, "cat /etc/resolv.conf | wc -c", resolvConfSize(t)},
		{"workdir", RunOptions{Image: small(t), Workdir: "/new/dir"}, "pwd", "/new/dir"},
		{"capabilities", RunOptions{Image: small(t)}, "grep CapEff /proc/self/status", "CapEff:\t00000000a80425fb"},
		{"one capability", RunOptions{Image: small(t), CapDrop: []string{"all"}, CapAdd: []string{"net_raw"}}, "grep CapBnd /proc/self/status", "CapBnd:\t0000000000002000"},
		{"security", RunOptions{Image: small(t), SecurityOpts: []string{"no-new-privileges", "seccomp=unconfined"}},
			"grep -E 'NoNewPrivs|Seccomp:' /proc/self/status", "NoNewPrivs:\t1\nSeccomp:\t0"},
		{"default seccomp", RunOptions{Image: small(t)}, "grep Seccomp: /proc/self/status; unshare -U true 2>/dev/null || echo no", "Seccomp:\t2\nno"},
		{"limits", RunOptions{Image: small(t), MemoryBytes: 64 << 20, CPUs: 1.5, PidsLimit: 50}, limitsScript, "67108864\n150000\n50"},
		{"swap", RunOptions{Image: small(t), MemoryBytes: 64 << 20}, swapScript, swapLimit(128 << 20)},
		{"swap as asked for", RunOptions{Image: small(t), MemoryBytes: 64 << 20, MemorySwapBytes: 80 << 20}, swapScript, swapLimit(80 << 20)},
		{"no swap", RunOptions{Image: small(t), MemoryBytes: 64 << 20, MemorySwapBytes: 64 << 20}, swapScript, swapLimit(64 << 20)},
		{"stdin is empty", RunOptions{Image: small(t)}, "cat | wc -c", "0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.Args = []string{"sh", "-c", c.script}
			if out := strings.TrimSpace(mustOutput(t, e, c.o)); out != c.want {
				t.Errorf("%s\ngot  %q\nwant %q", c.script, out, c.want)
			}
		})
	}
	if data, err := os.ReadFile(filepath.Join(host, "back")); string(data) != "back\n" {
		t.Errorf("written through a volume: %q, %v", data, err)
	}
	checkClean(t, e)
}

// limitsScript prints the limits of memory, CPU and processes, wherever this
// machine's cgroups have them.
const limitsScript = `cd /sys/fs/cgroup
cat memory.max memory/memory.limit_in_bytes 2>/dev/null
cat cpu.max cpu/cpu.cfs_quota_us 2>/dev/null | cut -d' ' -f1
cat pids.max pids/pids.max 2>/dev/null; true`

// swapScript prints the limit of memory and swap together, where the kernel has one.
const swapScript = `cd /sys/fs/cgroup
[ ! -e memory.swap.max ] || echo $(($(cat memory.max) + $(cat memory.swap.max)))
cat memory/memory.memsw.limit_in_bytes 2>/dev/null; true`

func swapLimit(bytes int64) string {
	if machine, err := host.Probe(); err != nil || !countsSwap(&machine) {
		return ""
	}
	return fmt.Sprint(bytes)
}

func resolvConfSize(t *testing.T) string {
	data, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return fmt.Sprint(len(data))
}

// TestRunRefuses checks what is said of what can't run, and the status that a
// command line ends with.
func TestRunRefuses(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	e := newEngine(t)
	dir := filepath.Join(t.TempDir(), "layout")
	makeImage(t, dir, "empty", "", nil)
	makeImage(t, dir, "nocommand", testLayout(t, "small")+":latest", func(c *v1.Image) { c.Config.Cmd, c.Config.Entrypoint = nil, nil })
	makeImage(t, dir, "other", testLayout(t, "small")+":latest", func(c *v1.Image) { c.Architecture = "s390x" })
	makeImage(t, dir, "passwd", testLayout(t, "small")+":latest", nil, []file{{name: "etc/passwd", link: "/proc/self/environ"}})
	image := func(tag string) RunOptions {
		return RunOptions{Image: "oci:" + dir + ":" + tag, Args: []string{"true"}}
	}
	with := func(change func(*RunOptions)) RunOptions {
		o := RunOptions{Image: small(t), Args: []string{"true"}}
		change(&o)
		return o
	}
	for _, c := range []struct {
		name   string
		o      RunOptions
		status int
		want   string
	}{
		{"missing command", with(func(o *RunOptions) { o.Args = []string{"no-such-thing"} }), 127, "no-such-thing"},
		{"missing path", with(func(o *RunOptions) { o.Args = []string{"/no/such"} }), 127, "/no/such"},
		{"not executable", with(func(o *RunOptions) { o.Args = []string{"/etc/hostname"} }), 126, "/etc/hostname"},
		{"directory", with(func(o *RunOptions) { o.Args = []string{"/bin"} }), 126, "/bin"},
		{"empty PATH", with(func(o *RunOptions) { o.Env = []string{"PATH="} }), 127, "true"},
		{"no command", RunOptions{Image: "oci:" + dir + ":nocommand"}, 125, "no command"},
		{"no layers", image("empty"), 127, "true"},
		{"other platform", image("other"), 125, "linux/s390x"},
		{"unknown user", with(func(o *RunOptions) { o.User = "nobody-here" }), 125, `unknown user: the image's /etc/passwd has no "nobody-here"`},
		{"unknown group", with(func(o *RunOptions) { o.User = "0:nogroup-here" }), 125, `unknown group`},
		{"bad id", with(func(o *RunOptions) { o.User = "4294967295" }), 125, "not an id"},
		{"accounts that are no file", func() RunOptions { o := image("passwd"); o.User = "x"; return o }(), 125, "etc/passwd"},
		{"volume without source", with(func(o *RunOptions) { o.Volumes = []string{"/no/such/place:/x"} }), 125, "/no/such/place"},
		{"named volume", with(func(o *RunOptions) { o.Volumes = []string{"data:/x"} }), 125, "absolute path"},
		{"network", with(func(o *RunOptions) { o.Network = "bridge" }), 125, `network "bridge"`},
		{"memory", with(func(o *RunOptions) { o.MemoryBytes = 1 }), 125, "6 MiB"},
		{"swap below memory", with(func(o *RunOptions) { o.MemoryBytes, o.MemorySwapBytes = 64<<20, 32<<20 }), 125, "below"},
		{"swap without memory", with(func(o *RunOptions) { o.MemorySwapBytes = 32 << 20 }), 125, "needs one of memory"},
		{"capability", with(func(o *RunOptions) { o.CapAdd = []string{"fly"} }), 125, "CAP_FLY"},
		{"security option", with(func(o *RunOptions) { o.SecurityOpts = []string{"label=x"} }), 125, "label=x"},
		{"profile", with(func(o *RunOptions) { o.SecurityOpts = []string{"seccomp=/no/such"} }), 125, "/no/such"},
		{"name", with(func(o *RunOptions) { o.ID = "../x" }), 125, "../x"},
		{"runtime", with(func(o *RunOptions) { o.Runtime = "/no/such/runtime" }), 125, "/no/such/runtime"},
		{"layout", with(func(o *RunOptions) { o.Image = "oci:/no/such:tag" }), 125, "/no/such"},
		{"tag", image("nope"), 125, "nope"},
		{"reference", with(func(o *RunOptions) { o.Image = "-bad-/.." }), 125, "invalid reference"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, _, err := output(t, e, c.o)
			if err == nil || !strings.Contains(err.Error(), c.want) || ExitStatus(err) != c.status {
				t.Errorf("got %v (status %d), want %q (status %d)\n%s", err, ExitStatus(err), c.want, c.status, out)
			}
		})
	}
	checkClean(t, e)
}

// TestOtherRuntimes runs containers by Debian's runc and crun.
func TestOtherRuntimes(t *testing.T) {
	if !testenv.PrivateMounts(t) {
		return
	}
	testenv.Leaks(t)
	e := newEngine(t)
	for _, name := range []string{"runc", "crun"} {
		t.Run(name, func(t *testing.T) {
			if name == "crun" {
				withoutHybridCgroups(t)
			}
			o := RunOptions{Image: small(t), Runtime: testenv.Tool(t, name), Args: []string{"sh", "-c", "hostname; exit 7"}, Hostname: "box", MemoryBytes: 64 << 20}
			if out, status, err := output(t, e, o); out != "box\n" || status != 7 || err != nil {
				t.Errorf("%q, status %d, %v", out, status, err)
			}
			o.Args = []string{"no-such-thing"}
			if _, _, err := output(t, e, o); ExitStatus(err) != 127 {
				t.Errorf("missing command: %v, status %d", err, ExitStatus(err))
			}
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			o.Args = []string{"sleep", "100"}
			if status, _ := e.Run(ctx, o); status == 0 {
				t.Error("a cancelled run ended well")
			}
			checkClean(t, e)
		})
	}
}

// TestManyAtOnce starts containers of an image that nobody has unpacked yet,
// with GC running beside them.
func TestManyAtOnce(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	e := newEngine(t)
	var group sync.WaitGroup
	for i := range 12 {
		group.Go(func() {
			want := fmt.Sprintf("%d\n", i)
			if out := mustOutput(t, e, RunOptions{Image: small(t), Args: []string{"sh", "-c", fmt.Sprintf("sleep 0.1; echo %d", i)}}); out != want {
				t.Errorf("got %q, want %q", out, want)
			}
		})
	}
	for range 4 {
		group.Go(func() {
			if _, err := e.GC(t.Context(), GCOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	checkClean(t, e)
}

// TestManyLayers stacks more layers than a page of mount options has room for
// by their names.
func TestManyLayers(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	dir := filepath.Join(t.TempDir(), "layout,with:odd")
	dir = strings.ReplaceAll(dir, ":", "_") // layouts can't have a colon in their names
	var layers [][]file
	for i := range 300 {
		layers = append(layers, []file{{name: fmt.Sprintf("layers/%d", i), content: fmt.Sprint(i), mode: 0o644}})
	}
	makeImage(t, dir, "deep", testLayout(t, "small")+":latest", nil, layers...)
	e := openEngine(t, filepath.Join(t.TempDir(), "odd:name,with=all"))
	out := mustOutput(t, e, RunOptions{Image: "oci:" + dir + ":deep", Args: []string{"sh", "-c", "ls /layers | wc -l; cat /layers/299"}})
	if out != "300\n299" {
		t.Errorf("got %q", out)
	}
	checkClean(t, e)
}

// TestOverlayOnOverlay: there a copy has to do.
func TestOverlayOnOverlay(t *testing.T) {
	if !testenv.PrivateMounts(t) {
		return
	}
	testenv.Leaks(t)
	base := t.TempDir()
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(base, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	merged := filepath.Join(base, "merged")
	testenv.Run(t, "mount", "-t", "overlay", "overlay", "-o",
		fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", base, base, base), merged)
	t.Cleanup(func() { testenv.Run(t, "umount", "-l", merged) })
	e := openEngine(t, merged)
	for range 2 {
		if out := mustOutput(t, e, RunOptions{Image: small(t), Args: []string{"sh", "-c", "touch /new; ls /new"}}); out != "/new\n" {
			t.Errorf("got %q", out)
		}
	}
	checkClean(t, e)
}

// TestExplain compiles for a bundle and for an image.
func TestExplain(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	e := newEngine(t)
	bundle := filepath.Join(t.TempDir(), "bundle")
	if err := e.Unpack(t.Context(), small(t), bundle, UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{bundle, small(t)} {
		p, err := e.Explain(t.Context(), target, RunOptions{Args: []string{"echo", "an-argument"}})
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		if err := p.Print(&text, false); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"pivot", "seccomp", "execve"} {
			if !strings.Contains(text.String(), want) {
				t.Errorf("plan of %s has no %s:\n%s", target, want, text.String())
			}
		}
		if got := strings.Contains(text.String(), "an-argument"); got != (target != bundle) {
			t.Errorf("plan of %s with arguments: %v", target, got)
		}
	}
	checkClean(t, e)
}
