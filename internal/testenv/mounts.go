package testenv

import (
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
	Root(t)
	if os.Getenv(privateVar) == t.Name() {
		return true
	}
	// -test.run takes one anchored expression for each level of subtests.
	levels := strings.Split(t.Name(), "/")
	for i, level := range levels {
		levels[i] = "^" + regexp.QuoteMeta(level) + "$"
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run="+strings.Join(levels, "/"), "-test.v", "-test.count=1")
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), privateVar+"="+t.Name())
	// The standard library makes the new namespace's mounts private as well.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // for Pdeathsig, see startServer
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "--- SKIP: "+t.Name()) {
		t.Skipf("in a private mount namespace:\n%s", out)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("in a private mount namespace: %v\n%s", err, out)
	}
	if testing.Verbose() {
		t.Logf("in a private mount namespace:\n%s", out)
	}
	return false
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
