package engines

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
)

// userID is of an ordinary user who is only known to the test's processes, with
// the 65,536 subordinate ids that follow.
const userID, subordinateID = 23456, 2345600

// user makes the ordinary user, in copies of the host's files that are mounted over
// them, and returns the user's home.
func user(t testing.TB) (home string) {
	t.Helper()
	home, err := os.MkdirTemp("/run", "home") // t.TempDir is root's
	if err != nil {
		t.Fatal(err)
	}
	entries := map[string]string{
		"/etc/passwd": fmt.Sprintf("tare:x:%d:%[1]d::%s:/bin/sh\n", userID, home),
		"/etc/group":  fmt.Sprintf("tare:x:%d:\n", userID),
		"/etc/subuid": fmt.Sprintf("tare:%d:65536\n", subordinateID),
		"/etc/subgid": fmt.Sprintf("tare:%d:65536\n", subordinateID),
	}
	dir := t.TempDir()
	for name, line := range entries {
		text, err := os.ReadFile(name)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		mine := filepath.Join(dir, filepath.Base(name))
		if err := os.WriteFile(mine, append(text, line...), 0o644); err != nil {
			t.Fatal(err)
		}
		cover(t, mine, name)
	}
	// What slirp4netns needs, and some machines keep from users. Only /dev has
	// devices; the name there is not needed once it is mounted.
	tun := "/dev/tare-test-tun"
	if err := errors.Join(unix.Mknod(tun, unix.S_IFCHR, int(unix.Mkdev(10, 200))), os.Chmod(tun, 0o666)); err != nil {
		t.Fatal(err)
	}
	cover(t, tun, "/dev/net/tun")
	if err := os.Remove(tun); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{home, "/run/user", fmt.Sprintf("/run/user/%d", userID)} {
		if err := errors.Join(os.MkdirAll(path, 0o755), os.Chown(path, userID, userID)); err != nil {
			t.Fatal(err)
		}
	}
	return home
}

// cover mounts a file or directory over another until the test ends.
func cover(t testing.TB, file, over string) {
	t.Helper()
	if err := unix.Mount(file, over, "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("mount %s on %s: %v", file, over, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(over, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", over, err)
		}
	})
}

func TestPodmanRootless(t *testing.T) {
	if !testenv.PrivateMachine(t) {
		return
	}
	if err := os.Mkdir("/run/tmp", 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", "/run/tmp")
	testenv.Leaks(t, "libpod")
	home := user(t)
	runtime := filepath.Join(home, "runtime") // where the user can read it
	copyFile(t, testenv.Runtime(t), runtime, 0o755)
	usr := filepath.Join(home, "usr") // podman, where it may be in root's own directories
	if err := os.Mkdir(usr, 0o755); err != nil {
		t.Fatal(err)
	}
	cover(t, filepath.Dir(filepath.Dir(testenv.Tool(t, "podman"))), usr)
	config := filepath.Join(home, "containers.conf")
	text := fmt.Sprintf(podmanConfig, testenv.Tool(t, "catatonit"), "cgroupfs", filepath.Base(runtime), usr+"/lib/podman")
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	p := engine{t, func(args ...string) *exec.Cmd {
		cmd := exec.Command(usr+"/bin/podman", append([]string{"--root", home + "/root", "--runroot", home + "/run", "--storage-driver", "vfs", "--runtime", runtime}, args...)...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home, fmt.Sprintf("XDG_RUNTIME_DIR=/run/user/%d", userID), "CONTAINERS_CONF=" + config}
		cmd.Dir = home
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: userID, Gid: userID}}
		return cmd
	}}
	image := filepath.Join(home, "base.tar")
	copyFile(t, testenv.BaseImage(t), image, 0o644)
	// conmon and runc write to /tmp, which is not open to all on every machine.
	testenv.Tmpfs(t, "/tmp", 64<<20)
	if err := os.Chmod("/tmp", 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	p.run("load", "--quiet", "--input", image)
	t.Cleanup(func() {
		p.run("rm", "--all", "--force", "--time", "0")
		pause, err := os.ReadFile(fmt.Sprintf("/run/user/%d/libpod/tmp/pause.pid", userID))
		if err == nil { // podman's process that keeps the user namespace
			testenv.Run(t, "kill", string(pause))
		}
	})
	for _, part := range []struct {
		name string
		test func(engine)
	}{
		{"run", rootlessRun},
		{"exec", rootlessExec},
		{"terminal", engine.terminals},
		{"user namespaces", rootlessUsers},
		{"stop", podmanStop},
		{"exit codes", podmanExitCodes},
		{"pod", rootlessPod},
		{"build", rootlessBuild},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(p.in(t)) })
	}
}

func copyFile(t testing.TB, from, to string, mode os.FileMode) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, content, mode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func rootlessRun(p engine) {
	p.mentions("true", "info", "--format", "{{.Host.Security.Rootless}}")
	p.says("hello 0", "run", "--rm", "base", "sh", "-c", "echo hello $(id -u)")
	p.says("1000", "run", "--rm", "--user", "app", "base", "id", "-u")
	p.fails(1, "read-only file system", "run", "--rm", "--read-only", "base", "touch", "/etc/x")
	p.mentions("tap0", "run", "--rm", "base", "ip", "link") // slirp4netns
	p.says("lo", "run", "--rm", "--network", "none", "base", "ls", "/sys/class/net")
	p.mentions("lo", "run", "--rm", "--network", "host", "base", "ls", "/sys/class/net")
	p.run("run", "--rm", "--init", "base", "true")
	volume := filepath.Join(p.command().Dir, "volume")
	p.run("unshare", "mkdir", volume)
	p.run("run", "--rm", "--volume", volume+":/v", "base", "touch", "/v/written")
	if info, err := os.Stat(filepath.Join(volume, "written")); err != nil {
		p.Error(err)
	} else if uid := info.Sys().(*syscall.Stat_t).Uid; uid != userID {
		p.Errorf("root's file belongs to %d outside; want %d", uid, userID)
	}
	// Capabilities are those of the user namespace.
	p.mentions("CapEff:\t00000000a80425fb", "run", "--rm", "base", "grep", "CapEff", "/proc/self/status")
}

func rootlessExec(p engine) {
	p.run("run", "--detach", "--name", "ex", "base", "sleep", "1000")
	defer p.run("rm", "--force", "--time", "0", "ex")
	p.says("in here", "exec", "ex", "echo", "in", "here")
	p.says("1000", "exec", "--user", "app", "ex", "id", "-u")
	p.fails(9, "", "exec", "ex", "sh", "-c", "exit 9")
	p.fails(127, "not found", "exec", "ex", "no-such-command")
}

func rootlessUsers(p engine) {
	ids := []string{"base", "sh", "-c", "echo $(awk '{ print $1, $2, $3 }' /proc/self/uid_map)"}
	p.says(fmt.Sprintf("0 %d 1 1 %d 65536", userID, subordinateID), append([]string{"run", "--rm"}, ids...)...)
	p.says(fmt.Sprint(userID), "run", "--rm", "--userns", "keep-id", "base", "id", "-u")
	if got := p.run(append([]string{"run", "--rm", "--userns", "auto:size=5000"}, ids...)...); !strings.HasPrefix(got, "0 1 5000") {
		p.Errorf("a user namespace within the user's: %q", got)
	}
}

func rootlessPod(p engine) {
	p.run("pod", "create", "--name", "pod", "--hostname", "podhost", "--infra-command", "/bin/sleep 1000", "--infra-image", "base")
	defer p.run("pod", "rm", "--force", "--time", "0", "pod")
	p.says("podhost", "run", "--rm", "--pod", "pod", "base", "hostname")
	p.run("run", "--detach", "--pod", "pod", "base", "sleep", "1000")
	p.run("pod", "stop", "--time", "0", "pod")
}

// rootlessBuild has no network: podman 4.3 would let netavark join the host's.
func rootlessBuild(p engine) {
	dir := p.write("Containerfile", "FROM base\nRUN id -u >/made && chown app /made\nCMD [\"stat\", \"-c\", \"%u\", \"/made\"]\n")
	p.run("build", "--quiet", "--isolation", "oci", "--network", "none", "--tag", "made", dir)
	p.says("1000", "run", "--rm", "made")
}
