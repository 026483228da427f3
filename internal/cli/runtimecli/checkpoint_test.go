package runtimecli_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/testenv"
)

// needsCRIU ends the test where CRIU does not work on the kernel.
func needsCRIU(t testing.TB) {
	t.Helper()
	testenv.Root(t)
	path, err := exec.LookPath("/usr/sbin/criu")
	if err == nil {
		err = exec.Command(path, "check").Run()
	}
	if err != nil {
		t.Skipf("CRIU does not work here (%v); the test runs in the virtual machine (test/vm/tests)", err)
	}
}

// countingInMemory counts in memory, which is what a checkpoint has to keep.
const countingInMemory = "i=0; while :; do i=$((i+1)); echo $i >/dev/shm/count.new; mv /dev/shm/count.new /dev/shm/count; sleep 0.05; done"

// newCounter makes a bundle that counts.
func newCounter(t testing.TB) *bundle {
	b := newBundle(t, countingInMemory)
	if err := os.Symlink("busybox", filepath.Join(b.dir, "rootfs/bin/mv")); err != nil {
		t.Fatal(err)
	}
	return b
}

// detached runs the container and leaves it.
func (b *bundle) detached(args ...string) {
	b.t.Helper()
	cmd := b.command(args...)
	log, err := os.Create(filepath.Join(b.dir, "log"))
	if err != nil {
		b.t.Fatal(err)
	}
	defer log.Close()
	// Not the log: CRIU wants a file to be as it was.
	cmd.Args = append([]string{cmd.Args[0], "--log", log.Name()}, cmd.Args[1:]...)
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(log.Name()) // only to tell more
		b.t.Fatalf("%s: %v\n%s%s", cmd, err, text, b.criuLog())
	}
}

func (b *bundle) criuLog() string {
	out, _ := exec.Command("sh", "-c", "grep -h Error "+b.dir+"/work/*.log").Output() // only to tell more
	return string(out)
}

// counted is the number that the container has come to, once it is above min.
func (b *bundle) counted(min int) int {
	b.t.Helper()
	path := fmt.Sprintf("/proc/%d/root/dev/shm/count", b.state().Pid)
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		text, _ := os.ReadFile(path) // as it may not be there yet
		if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && n > min {
			return n
		}
	}
	b.t.Fatalf("the container does not count beyond %d", min)
	return 0
}

// status is what /proc says of the container's process, and of what a checkpoint has to keep.
func (b *bundle) status() (lines []string) {
	b.t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", b.state().Pid))
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		name, _, _ := strings.Cut(s.Text(), ":")
		switch name {
		case "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp":
			lines = append(lines, strings.Join(strings.Fields(s.Text()), " "))
		}
	}
	return lines
}

// filtered gives the container a filter that refuses what it does not do.
func filtered(b *bundle) {
	b.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActErrno}}}
}

// boundFiles binds a directory of the bundle, and a file of the host.
func boundFiles(b *bundle) {
	for _, dir := range []string{"data/sub", "rootfs/data"} {
		if err := os.MkdirAll(filepath.Join(b.dir, dir), 0o755); err != nil {
			b.t.Fatal(err)
		}
	}
	b.Mounts = append(b.Mounts, specs.Mount{Destination: "/data", Source: "data", Options: []string{"rbind", "ro"}},
		specs.Mount{Destination: "/etc/passwd", Source: "/etc/passwd", Options: []string{"bind"}})
}

func TestCheckpoint(t *testing.T) {
	needsCRIU(t)
	testenv.Leaks(t)
	// Each takes seven seconds where the machine is emulated: what does not exclude
	// each other is in one.
	for name, change := range map[string]func(*bundle){
		"example": func(*bundle) {},
		"bound files, user without new privileges, filter, control groups of its own": func(b *bundle) {
			b.Process.User, b.Process.NoNewPrivileges = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{5}}, true
			filtered(b)
			b.Linux.Namespaces = append(b.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
			limit, pids := int64(100<<20), int64(50)
			b.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}, Pids: &specs.LinuxPids{Limit: &pids}}
			boundFiles(b)
		},
		"read-only root, new privileges, filter, host's network": func(b *bundle) {
			b.Root.Readonly, b.Process.NoNewPrivileges = true, false
			filtered(b)
			b.Linux.Namespaces = slices.DeleteFunc(b.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == specs.NetworkNamespace })
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newCounter(t)
			change(b)
			b.detached("run", "--detach", "ID")
			b.counted(3)
			before := b.status()
			b.do("checkpoint", "--image-path", "image", "--work-path", "work", "ID")
			if m := b.lastError("state", "ID"); !strings.HasSuffix(m, "container does not exist") {
				t.Error("after the checkpoint:", m)
			}
			b.detached("restore", "--detach", "--image-path=image", "--work-path=work", "--pid-file", "pid", "ID")
			if pid, err := os.ReadFile(filepath.Join(b.dir, "pid")); err != nil || string(pid) != strconv.Itoa(b.state().Pid) {
				t.Errorf("pid file %q, %v", pid, err)
			}
			if n := b.counted(4); n < 4 {
				t.Error("it counts from the beginning")
			}
			b.counted(b.counted(0))
			if after := b.status(); strings.Join(after, "\n") != strings.Join(before, "\n") {
				t.Errorf("before %q\nafter  %q", before, after)
			}
			if out := b.output("exec", "ID", "cat", "/dev/shm/count"); out == "" {
				t.Error("exec says nothing")
			}
			if strings.HasPrefix(name, "bound files") {
				if out := b.output("exec", "ID", "sh", "-c", "ls /data; touch /data/x 2>&1; grep -c root: /etc/passwd"); !strings.Contains(out, "Read-only") {
					t.Error(out)
				}
			}
			b.do("delete", "--force", "ID")
		})
	}
}

// Memory goes ahead, and the rest follows while the container waits.
func TestCheckpointChain(t *testing.T) {
	needsCRIU(t)
	testenv.Leaks(t)
	b := newCounter(t)
	b.detached("run", "--detach", "ID")
	b.counted(3)
	b.do("checkpoint", "--pre-dump", "--image-path", "image/first", "ID")
	n := b.counted(b.counted(0))
	b.do("checkpoint", "--leave-running", "--image-path", "image/second", "--parent-path", "../first", "ID")
	b.counted(n)
	b.do("kill", "ID", "KILL")
	b.awaitStopped()
	b.do("delete", "ID")
	b.detached("restore", "--detach", "--image-path", "image/second", "ID")
	b.counted(n)
	b.do("delete", "--force", "ID")
	for args, want := range map[string]string{
		"--image-path image/x --parent-path /first":     "--parent-path must be relative",
		"--image-path image/x --parent-path ../nowhere": "invalid --parent-path",
		"--lazy-pages":                "--lazy-pages is not supported",
		"--manage-cgroups-mode hard":  "invalid manage-cgroups-mode value",
		"--page-server nowhere":       "Use --page-server ADDRESS:PORT",
		"--page-server 127.0.0.1:abc": "Invalid port number",
		"--empty-ns pid":              `namespace "pid" is not supported`,
	} {
		b.do("create", "ID")
		b.do("start", "ID")
		if m := b.lastError(append(append([]string{"checkpoint"}, strings.Fields(args)...), "ID")...); !strings.Contains(m, want) {
			t.Errorf("%s: %s", args, m)
		}
		b.do("delete", "--force", "ID")
	}
}

// A container that is restored in the foreground has our pipes, and we its status.
func TestRestoreInForeground(t *testing.T) {
	needsCRIU(t)
	testenv.Leaks(t)
	b := newCounter(t)
	b.Process.Args = []string{"sh", "-c", "echo begins; while ! test -e /dev/shm/go; do sleep 0.05; done; read line; echo \"heard $line\"; exit 7"}
	cmd := b.command("run", "ID")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	if line, err := lines.ReadString('\n'); err != nil || line != "begins\n" {
		t.Errorf("%q, %v", line, err)
	}
	b.do("checkpoint", "--image-path", "image", "--work-path", "work", "ID")
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 137 {
		t.Errorf("the container that was saved: %v", err)
	}
	in.Close()
	cmd = b.command("restore", "--image-path", "image", "--work-path", "work", "ID")
	cmd.Stdin = strings.NewReader("a line\n")
	go func() { // it waits for this
		for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			if exec.Command("tare-runtime", "--root", b.root, "exec", b.id, "touch", "/dev/shm/go").Run() == nil {
				return
			}
		}
	}()
	text, err := cmd.Output()
	if string(text) != "heard a line\n" || cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("%q, %v: %s", text, err, b.criuLog())
	}
}

func TestRestoreInTerminal(t *testing.T) {
	needsCRIU(t)
	testenv.Leaks(t)
	b := newCounter(t)
	b.terminal()
	b.Process.Args = []string{"sh", "-c", "while read line; do echo \"heard $line\"; done"}
	path, master := b.console()
	b.detached("run", "--detach", "--console-socket", path, "ID")
	first := master()
	first.typing("one\n")
	first.expect("heard one")
	b.do("checkpoint", "--image-path", "image", "--work-path", "work", "ID")
	b.detached("restore", "--detach", "--console-socket", path, "--image-path", "image", "--work-path", "work", "ID")
	second := master()
	second.typing("two\n")
	second.expect("heard two")
	b.do("delete", "--force", "ID")
}

// A restore that fails leaves nothing.
func TestRestoreFails(t *testing.T) {
	needsCRIU(t)
	testenv.Leaks(t)
	b := newCounter(t)
	if m := b.lastError("restore", "--image-path", "nowhere", "ID"); !strings.Contains(m, "no such file or directory") {
		t.Error("no checkpoint:", m)
	}
	b.Mounts = append(b.Mounts, specs.Mount{Destination: "/etc/passwd", Source: "/etc/passwd", Options: []string{"bind"}})
	b.detached("run", "--detach", "ID")
	b.counted(1)
	b.do("checkpoint", "--image-path", "image", "ID")
	b.Mounts = b.Mounts[:len(b.Mounts)-1]
	if m := b.lastError("restore", "--image-path", "image", "ID"); !strings.Contains(m, "mounted at /etc/passwd, which config.json does not name") {
		t.Error("a mount is missing:", m)
	}
	if err := os.Truncate(filepath.Join(b.dir, "image/inventory.img"), 0); err != nil {
		t.Fatal(err)
	}
	b.Mounts = append(b.Mounts, specs.Mount{Destination: "/etc/passwd", Source: "/etc/passwd", Options: []string{"bind"}})
	if m := b.lastError("restore", "--image-path", "image", "--work-path", "work", "ID"); !strings.Contains(m, "criu restore: failed") ||
		!strings.Contains(m, "restore.log") {
		t.Error("a broken checkpoint:", m)
	}
	if m := b.lastError("state", "ID"); !strings.HasSuffix(m, "container does not exist") {
		t.Error("after failures:", m)
	}
	b.do("create", "ID")
	if m := b.lastError("checkpoint", "--image-path", "image2", "ID"); !strings.Contains(m, "Container cannot be checkpointed in created state") {
		t.Error("not started:", m)
	}
	b.do("delete", "--force", "ID")
}

// What CRIU keeps only where it is told to. Connections are kept in the host's
// network, or one that is joined: a network of the container's own comes back empty.
func TestCheckpointFlags(t *testing.T) {
	needsCRIU(t)
	testenv.Leaks(t)
	for _, c := range []struct{ flag, script, holds string }{
		{"--file-locks", "exec 9>/dev/shm/lock; flock -n 9; ", "! flock -n /dev/shm/lock true"},
		{"--tcp-established", "nc -l -p 9875 -e cat >/dev/null & sleep 0.2; (while sleep 0.1; do echo x; done) | nc 127.0.0.1 9875 >/dev/shm/echoed & " +
			"until test -s /dev/shm/echoed; do sleep 0.05; done; ", "rm /dev/shm/echoed; netstat -tn | grep -q ':9875 .*ESTABLISHED'"},
	} {
		t.Run(c.flag, func(t *testing.T) {
			b := newCounter(t)
			for _, applet := range []string{"flock", "nc", "netstat", "rm", "test"} {
				if err := os.Symlink("busybox", filepath.Join(b.dir, "rootfs/bin", applet)); err != nil && !os.IsExist(err) {
					t.Fatal(err)
				}
			}
			b.Process.Args = []string{"sh", "-c", c.script + countingInMemory}
			b.Linux.Namespaces = slices.DeleteFunc(b.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == specs.NetworkNamespace })
			b.detached("run", "--detach", "ID")
			b.counted(3)
			b.do("checkpoint", c.flag, "--image-path", "image", "--work-path", "work", "ID")
			b.detached("restore", "--detach", c.flag, "--image-path", "image", "--work-path", "work", "ID")
			b.counted(b.counted(0))
			b.do("exec", "ID", "sh", "-c", c.holds)
			b.do("delete", "--force", "ID")
		})
	}
}

// A socket that is connected to one outside, as that of a log, is connected again.
func TestCheckpointExternalSocket(t *testing.T) {
	needsCRIU(t)
	testenv.Leaks(t)
	b := newCounter(t)
	dir := filepath.Join(b.dir, "sockets")
	if err := os.MkdirAll(filepath.Join(b.dir, "rootfs", dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	server, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: dir + "/socket", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	hears := func() string {
		t.Helper()
		buf := make([]byte, 100)
		if err := server.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := server.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
	client, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: dir + "/socket", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	file, err := client.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	client.Close()
	// CRIU looks for sockets in the container's network; this one is of the host's.
	b.Linux.Namespaces = slices.DeleteFunc(b.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == specs.NetworkNamespace })
	// Where it is for the server: that is what the kernel knows of it.
	b.Mounts = append(b.Mounts, specs.Mount{Destination: dir, Source: dir, Options: []string{"bind"}})
	b.Process.Args = []string{"sh", "-c", "i=0; while :; do i=$((i+1)); echo $i >&3; sleep 0.01; done"}
	cmd := b.command("run", "--detach", "--preserve-fds", "1", "ID")
	cmd.ExtraFiles = []*os.File{file}
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	file.Close()
	hears()
	if m := b.lastError("checkpoint", "--image-path", "image", "--work-path", "work", "ID"); !strings.Contains(m, "criu") {
		t.Error("without --ext-unix-sk:", m)
	}
	b.do("checkpoint", "--ext-unix-sk", "--image-path", "image", "--work-path", "work", "ID")
	b.detached("restore", "--detach", "--ext-unix-sk", "--image-path", "image", "--work-path", "work", "ID")
	for range 200 { // what is on its way, and more
		hears()
	}
	b.do("delete", "--force", "ID")
}

// The memory can go to a server elsewhere, and comes back from what that keeps.
func TestCheckpointPageServer(t *testing.T) {
	needsCRIU(t)
	testenv.Leaks(t)
	b := newCounter(t)
	b.detached("run", "--detach", "ID")
	b.counted(3)
	pages := filepath.Join(b.dir, "pages")
	if err := os.Mkdir(pages, 0o700); err != nil {
		t.Fatal(err)
	}
	server := exec.Command("/usr/sbin/criu", "page-server", "--images-dir", pages, "--address", "127.0.0.1", "--port", "9876")
	var said strings.Builder
	server.Stdout, server.Stderr = &said, &said
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	listens := func() bool {
		text, _ := os.ReadFile("/proc/net/tcp") // the loop asks again
		return strings.Contains(string(text), "0100007F:2694")
	}
	for deadline := time.Now().Add(20 * time.Second); !listens(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no page server: %s", &said)
		}
	}
	b.do("checkpoint", "--page-server", "127.0.0.1:9876", "--image-path", "image", "--work-path", "work", "ID")
	if err := server.Wait(); err != nil {
		t.Errorf("page server: %v: %s", err, &said)
	}
	if here, _ := filepath.Glob(filepath.Join(b.dir, "image/pages-*.img")); len(here) > 0 {
		t.Errorf("memory that did not go to the server: %v", here)
	}
	moved, err := filepath.Glob(pages + "/*.img")
	if err != nil || len(moved) == 0 {
		t.Fatalf("the server has nothing: %v", err)
	}
	for _, file := range moved {
		if err := os.Rename(file, filepath.Join(b.dir, "image", filepath.Base(file))); err != nil {
			t.Fatal(err)
		}
	}
	b.detached("restore", "--detach", "--image-path", "image", "--work-path", "work", "ID")
	b.counted(b.counted(0))
	b.do("delete", "--force", "ID")
}
