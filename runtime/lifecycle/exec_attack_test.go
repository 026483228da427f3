package lifecycle_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// CVE-2024-21626: a working directory through a descriptor that the runtime has
// left open leads out of the container. None is open, and no such link is followed.
func TestExecCwdStaysInside(t *testing.T) {
	b := running(t, func(b *bundle) {
		for fd := range 32 {
			b.symlink(fmt.Sprintf("/proc/self/fd/%d", fd), fmt.Sprintf("rootfs/links/fd%d", fd))
			b.symlink(fmt.Sprintf("/proc/self/fd/%d/../..", fd), fmt.Sprintf("rootfs/links/up%d", fd))
		}
		b.symlink("/proc/self/cwd", "rootfs/links/cwd")
		b.symlink("/proc/1/root", "rootfs/links/root")
		b.symlink("../../../../..", "rootfs/links/dots")
	})
	for fd := range 32 {
		for _, cwd := range []string{fmt.Sprintf("/proc/self/fd/%d", fd), fmt.Sprintf("/proc/self/fd/%d/../../..", fd),
			fmt.Sprintf("/links/fd%d", fd), fmt.Sprintf("/links/up%d", fd), fmt.Sprintf("/proc/thread-self/fd/%d", fd)} {
			out, _, err := b.exec(func(p *specs.Process) { p.Cwd = cwd }, "readlink /proc/self/cwd")
			if err == nil {
				t.Errorf("cwd %s is %q", cwd, out)
			}
		}
	}
	for cwd, want := range map[string]string{"/links/dots": "/", "/../../etc/..": "/"} {
		out, _, err := b.exec(func(p *specs.Process) { p.Cwd = cwd }, "readlink /proc/self/cwd")
		if err != nil || out != want {
			t.Errorf("cwd %s is %q, %v, want %q", cwd, out, err, want)
		}
	}
}

// CVE-2019-5736: a container overwrites the runtime's binary through the
// /proc/PID/exe of a process that enters it. What it finds there is a sealed
// file in memory, and the runtime is not to be found.
func TestExecBinaryCannotBeOverwritten(t *testing.T) {
	self := checksum(t)
	b := running(t, func(b *bundle) {
		b.mighty()
		b.write("rootfs/opt/again", "#!/proc/self/exe\n", 0o755)
		b.mkdir("rootfs/seen")
		b.Process.Args[2] = `trap 'exit 0' TERM
			while :; do for p in /proc/[0-9]*; do
				case $p in /proc/1|/proc/$$) continue;; esac
				e=$(readlink $p/exe) || continue
				case $e in /bin/busybox) continue;; esac
				echo "$e" >>/seen/names
				(echo spoiled >$p/exe) 2>>/seen/errors && echo "$e" >>/seen/written
			done; done`
	})
	deadline := time.Now().Add(2 * time.Second)
	for time.Now().Before(deadline) {
		if out, status, err := b.exec(nil, "echo fine"); out != "fine" || status != 0 || err != nil {
			t.Fatalf("%q, %d, %v", out, status, err)
		}
		// This makes the kernel run whatever /proc/self/exe is once more, inside.
		_, status, err := b.exec(func(p *specs.Process) { p.Args = []string{"/opt/again"} }, "")
		if err == nil && status == 0 {
			t.Error("a script for /proc/self/exe ran")
		}
	}
	if checksum(t) != self {
		t.Fatal("the runtime's binary has changed")
	}
	if written, err := os.ReadFile(b.path("rootfs/seen/written")); err == nil {
		t.Errorf("the container could write to %s", written)
	}
	names, err := os.ReadFile(b.path("rootfs/seen/names"))
	for name := range strings.Lines(string(names)) {
		if !strings.HasPrefix(name, "/memfd:tare-init") {
			t.Errorf("the container saw %s", name)
		}
	}
	t.Logf("the container saw %d programs on their way (%v)", strings.Count(string(names), "\n"), err)
}

// mighty gives the container's processes what they need to look into others.
func (b *bundle) mighty() {
	caps := []string{"CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN"}
	b.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
}

func checksum(t testing.TB) [sha256.Size]byte {
	t.Helper()
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(data)
}

// A process on its way in shows the container no descriptor of the host: not
// even to one that may trace it.
func TestExecLeaksNoDescriptors(t *testing.T) {
	b := running(t, func(b *bundle) {
		b.mkdir("rootfs/seen")
		b.mighty()
		b.Process.Args[2] = `trap 'exit 0' TERM
			while :; do for p in /proc/[0-9]*; do
				case $p in /proc/1|/proc/$$) continue;; esac
				read name <$p/comm
				[ "$name" = tare-init ] && for f in $p/fd/* $p/cwd $p/root; do echo "$name $f $(readlink $f)"; done >>/seen/fds
			done; done 2>/seen/errors`
	})
	var seen []byte
	for i := 0; i < 200 || len(seen) == 0; i++ {
		if _, _, err := b.exec(nil, "true"); err != nil {
			t.Fatal(err)
		}
		seen, _ = os.ReadFile(b.path("rootfs/seen/fds")) // there once it has seen one
		if i == 5000 {
			t.Fatal("the container has not seen one of 5000 processes on its way")
		}
	}
	t.Logf("the container saw %d descriptors", strings.Count(string(seen), "\n"))
	for line := range strings.Lines(string(seen)) {
		target := strings.Fields(line)[2:]
		if len(target) > 0 && strings.HasPrefix(target[0], "/") && target[0] != "/dev/null" && target[0] != "/" {
			t.Errorf("the container saw %s", line)
		}
	}
}
