package testenv

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// privateVar tells the second process of PrivateMounts that it is the one.
const privateVar = "TARE_TEST_PRIVATE_MOUNTS"

// privateProcessesVar tells it that its process table is its own as well.
const privateProcessesVar = "TARE_TEST_PRIVATE_PROCESSES"

func privateProcesses() bool { return os.Getenv(privateProcessesVar) != "" }

// PrivateMounts runs the calling test again in a process of its own that has a
// private mount namespace, and reports there true. In the first process it
// waits for the second one, fails the test when that failed, and returns false:
//
//	if !testenv.PrivateMounts(t) {
//		return
//	}
//
// It must come before anything else the test does. Mounts made after it are
// seen by no other process, and vanish with the test.
func PrivateMounts(t testing.TB) bool {
	t.Helper()
	return private(t, syscall.CLONE_NEWNS)
}

// PrivateMachine is PrivateMounts for tests of whole engines, which write all
// over a machine: the second process has a network of its own as well (with
// loopback only, and with its own packet filter), a process table of its own, so
// that all it starts ends with it, and empty directories in the place of those
// where engines keep what is running. Only control groups are the host's.
func PrivateMachine(t testing.TB) bool {
	t.Helper()
	if !private(t, syscall.CLONE_NEWNS|syscall.CLONE_NEWNET|syscall.CLONE_NEWPID) {
		return false
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		t.Fatalf("mount /proc: %v", err)
	}
	// Engines expect what systemd makes: mounts that are shared, here with nobody.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		t.Fatalf("share mounts: %v", err)
	}
	Run(t, "ip", "link", "set", "lo", "up")
	for _, dir := range []string{"/run", "/dev/shm", "/var/lib/cni"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		Tmpfs(t, dir, 64<<20)
	}
	return true
}

// private runs the calling test again in a process with new namespaces.
func private(t testing.TB, namespaces uintptr) bool {
	t.Helper()
	Root(t)
	if os.Getenv(privateVar) == t.Name() {
		return true
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), privateVar+"="+t.Name())
	args := []string{self, "-test.run=" + onlyThis(t), "-test.v", "-test.count=1"}
	if namespaces&syscall.CLONE_NEWPID != 0 {
		// A PID 1 that waits for orphans: engines ask by kill(pid, 0) whether a
		// process lives, which is true of those that nobody waited for.
		args = append([]string{Tool(t, "tini"), "--"}, args...)
		env = append(env, privateProcessesVar+"=1")
	}
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env = env
	cmd.SysProcAttr = &syscall.SysProcAttr{
		// The standard library makes an unshared namespace's mounts private as
		// well. Unshared process tables are for children only.
		Unshareflags: namespaces &^ syscall.CLONE_NEWPID,
		Cloneflags:   namespaces & syscall.CLONE_NEWPID,
		Pdeathsig:    syscall.SIGKILL,
	}
	runtime.LockOSThread() // for Pdeathsig, see startServer
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "--- SKIP: "+t.Name()) {
		t.Skipf("in private namespaces:\n%s", out)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("in private namespaces: %v\n%s", err, out)
	}
	if testing.Verbose() {
		t.Logf("in private namespaces:\n%s", out)
	}
	return false
}

// onlyThis returns what to give -test.run for the calling test, and for those of
// its subtests that this process was asked for.
func onlyThis(t testing.TB) string {
	levels := strings.Split(t.Name(), "/") // an anchored expression for each
	for i, level := range levels {
		levels[i] = "^" + regexp.QuoteMeta(level) + "$"
	}
	// Of several patterns it is unknown which one asked for this test.
	asked := flag.Lookup("test.run").Value.String()
	if several := strings.ContainsRune(regexp.MustCompile(`\([^()]*\)`).ReplaceAllString(asked, ""), '|'); !several {
		if parts := strings.Split(asked, "/"); len(parts) > len(levels) {
			levels = append(levels, parts[len(levels):]...)
		}
	}
	return strings.Join(levels, "/")
}

// Tmpfs mounts a tmpfs of the given size on dir, which exists, until the test
// ends. The test must be in PrivateMounts.
func Tmpfs(t testing.TB, dir string, sizeBytes int64) {
	t.Helper()
	if os.Getenv(privateVar) == "" {
		t.Fatal("testenv.Tmpfs outside of testenv.PrivateMounts: it would mount on the host")
	}
	if err := unix.Mount("tare-test", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("size=%d", sizeBytes)); err != nil {
		t.Fatalf("mount tmpfs on %s: %v", dir, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
}
