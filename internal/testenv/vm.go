package testenv

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// VM is a throwaway virtual machine with Debian's kernel, made by test/vm/run
// for one command. The zero value has cgroup v2, AppArmor, a small PID 1 and
// five minutes. A first use builds the guest, which takes some minutes.
type VM struct {
	CgroupV1 bool          // cgroup v1 in place of v2
	Systemd  bool          // PID 1 is systemd with dbus
	Share    []string      // host directories, at the same path, read-only
	ShareRW  []string      // the same, writable
	Timeout  time.Duration // of boot and command together
}

// Run boots the machine, runs the command there as root and returns what it
// wrote, stdout and stderr in one. The test fails unless the command exits 0.
func (vm VM) Run(t testing.TB, command string, args ...string) string {
	t.Helper()
	for _, tool := range []string{"qemu-system-x86_64", "debootstrap", "mkfs.ext4", "xz"} {
		Tool(t, tool)
	}
	options := append(vm.options(), "--", command)
	cmd := exec.CommandContext(t.Context(), filepath.Join(moduleRoot(t), "test", "vm", "run"), append(options, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", cmd, err, out, &stderr)
	}
	return string(out)
}

func (vm VM) options() []string {
	var options []string
	if vm.CgroupV1 {
		options = append(options, "--cgroup", "v1")
	}
	if vm.Systemd {
		options = append(options, "--init", "systemd")
	}
	if vm.Timeout > 0 {
		options = append(options, "--timeout", fmt.Sprint(int(vm.Timeout.Seconds())))
	}
	for _, dir := range vm.Share {
		options = append(options, "--share", dir)
	}
	for _, dir := range vm.ShareRW {
		options = append(options, "--share-rw", dir)
	}
	return options
}
