package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/lifecycle"
)

// running makes a container whose process runs until the test ends, or until
// it gets SIGTERM.
func running(t *testing.T, change func(*bundle)) *bundle {
	t.Helper()
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "trap 'exit 0' TERM; while :; do sleep 0.01; done")
	if change != nil {
		change(b)
	}
	b.create()
	if err := b.store.Start(t.Context(), b.id); err != nil {
		t.Fatal(err)
	}
	return b
}

// execOptions run a shell script in the container, as the container's own
// process but for what change does.
func (b *bundle) execOptions(out *os.File, change func(*specs.Process), script string) lifecycle.ExecOptions {
	return lifecycle.ExecOptions{ID: b.id, Stdio: [3]*os.File{b.stdin, out, out},
		Warn: func(message string) { b.t.Log("warning:", message) },
		Process: func(own *specs.Process) (*specs.Process, error) {
			own.Args = []string{"sh", "-c", script}
			if change != nil {
				change(own)
			}
			return own, nil
		}}
}

// exec runs a script in the container to its end.
func (b *bundle) exec(change func(*specs.Process), script string) (out string, status int, err error) {
	b.t.Helper()
	w, text := output(b.t)
	status, err = b.execWith(b.execOptions(w, change, script))
	w.Close()
	return text(), status, err
}

func (b *bundle) execWith(o lifecycle.ExecOptions) (status int, err error) {
	b.t.Helper()
	p, err := b.store.Exec(b.t.Context(), o)
	if err != nil {
		return 0, err
	}
	status, err = p.Wait()
	return status, errors.Join(err, p.Close(context.Background()))
}

// inside is what a process that was brought into a container sees there.
type inside struct {
	name   string
	change func(*specs.Process)
	script string
	want   string
	status int
}

func (b *bundle) look(views []inside) {
	b.t.Helper()
	for _, v := range views {
		out, status, err := b.exec(v.change, v.script)
		if err != nil || status != v.status || out != v.want {
			b.t.Errorf("%s: exit status %d, want %d, %v; printed\n%s\nwant\n%s", v.name, status, v.status, err, out, v.want)
		}
	}
}

const allCaps = `grep ^Cap /proc/self/status | tr '\t\n' '  '`

// What is said of the process, and what its container is, as it sees it.
func TestExecProcess(t *testing.T) {
	b := running(t, func(b *bundle) {
		b.Hostname = "inner"
		b.Process.Env = append(b.Process.Env, "FROM=config")
		b.Process.Capabilities.Ambient = nil
		b.Process.User.Umask = ptr[uint32](0o27)
		b.Process.OOMScoreAdj = ptr(321)
		b.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}}
		b.write("rootfs/opt/say", "#!/bin/sh\necho said $1", 0o755)
	})
	b.stdin = openNull(t)
	same := "pid net ipc uts mnt cgroup user"
	b.look([]inside{
		{name: "namespaces", script: "for n in " + same + "; do [ $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) ] || echo $n; done; hostname",
			want: "inner"},
		{name: "process id", script: "[ $$ -gt 1 ] && [ $(readlink /proc/self) -gt 1 ] && cut -d' ' -f4 /proc/$$/stat", want: "0"},
		{name: "session leader without a terminal", script: "set -- $(cat /proc/$$/stat); [ $5 = $$ ] && [ $6 = $$ ] && echo $7", want: "0"},
		{name: "control groups", script: "cut -d: -f2- /proc/self/cgroup >/tmp1; cut -d: -f2- /proc/1/cgroup | grep -vFxf /tmp1; echo none", want: "none"},
		{name: "environment", script: "env | sort", want: lines("FROM=config", "HOME=/root", "PATH=/bin", "PWD=/", "SHLVL=1", "X=y z"),
			change: func(p *specs.Process) { p.Env = append(p.Env, "X=y z") }},
		{name: "home of a user", script: "echo $HOME", want: "/home/user", change: func(p *specs.Process) { p.User.UID = 1000 }},
		{name: "working directory", script: "readlink /proc/self/cwd", want: "/etc", change: func(p *specs.Process) { p.Cwd = "/etc" }},
		{name: "command in PATH", change: func(p *specs.Process) { p.Env, p.Args = []string{"PATH=/none:/opt:/bin"}, []string{"say", "it"} }, want: "said it"},
		{name: "umask", script: "umask", want: "0027"},
		{name: "its own umask", script: "umask", want: "0077", change: func(p *specs.Process) { p.User.Umask = ptr[uint32](0o77) }},
		{name: "user and groups", script: "id -u; id -g; id -G", want: lines("1000", "7", "7 5 6"),
			change: func(p *specs.Process) { p.User = specs.User{UID: 1000, GID: 7, AdditionalGids: []uint32{5, 6}} }},
		{name: "capabilities of the configuration", script: allCaps,
			want: "CapInh: 0000000000000000 CapPrm: 0000000020000420 CapEff: 0000000020000420 CapBnd: 0000000020000420 CapAmb: 0000000000000000"},
		{name: "its own capabilities", script: allCaps,
			change: func(p *specs.Process) {
				k := []string{"CAP_KILL"}
				p.Capabilities = &specs.LinuxCapabilities{Bounding: k, Permitted: k, Effective: k}
			},
			want: "CapInh: 0000000000000000 CapPrm: 0000000000000020 CapEff: 0000000000000020 CapBnd: 0000000000000020 CapAmb: 0000000000000000"},
		{name: "none said means the configuration's", script: allCaps, change: func(p *specs.Process) { p.Capabilities = nil },
			want: "CapInh: 0000000000000000 CapPrm: 0000000020000420 CapEff: 0000000020000420 CapBnd: 0000000020000420 CapAmb: 0000000000000000"},
		{name: "no new privileges", script: "grep NoNewPrivs /proc/self/status", want: "NoNewPrivs:\t1"},
		{name: "new privileges", script: "grep NoNewPrivs /proc/self/status", want: "NoNewPrivs:\t0",
			change: func(p *specs.Process) { p.NoNewPrivileges = false }},
		{name: "limits and oom score", script: "ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj", want: lines("100", "200", "321")},
		{name: "its own limits and oom score", script: "ulimit -Sn; cat /proc/self/oom_score_adj", want: lines("50", "400"),
			change: func(p *specs.Process) {
				p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 50, Hard: 60}}
				p.OOMScoreAdj = ptr(400)
			}},
		{name: "descriptors", script: "ls /proc/$$/fd; true", want: lines("0", "1", "2")},
		{name: "session keyring", script: "grep -o '_ses." + b.id + ":' /proc/keys | sort -u; true", want: ""},
		{name: "exit status", script: "exit 42", status: 42},
		{name: "killed by a signal", script: "kill -KILL $$", status: 137},
	})
}

// The container's filter comes into force before the program does, with and
// without new privileges, for root and a user.
func TestExecSeccomp(t *testing.T) {
	b := running(t, func(b *bundle) {
		b.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow,
			Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat", "setns", "clone3"}, Action: specs.ActErrno, ErrnoRet: ptr[uint](1)}}}
	})
	for _, nnp := range []bool{true, false} {
		for _, uid := range []uint32{0, 1000} {
			b.look([]inside{{name: fmt.Sprintf("no new privileges %v, user %d", nnp, uid), script: "cd /dev/shm; mkdir x; grep Seccomp: /proc/self/status",
				want:   lines("mkdir: can't create directory 'x': Operation not permitted", "Seccomp:\t2"),
				change: func(p *specs.Process) { p.NoNewPrivileges, p.User.UID = nnp, uid }}})
		}
	}
}

// In a container with a user namespace the process is who it is in there, and
// so are the files it makes and the terminal it gets.
func TestExecUserNamespace(t *testing.T) {
	b := running(t, (*bundle).userNamespace)
	b.stdin = openNull(t)
	b.look([]inside{
		{name: "maps", script: "id -u; id -G; tr -s ' ' </proc/self/uid_map", want: lines("0", "0", " 0 100000 2000")},
		{name: "root's files", script: "touch /f && stat -c %u:%g /f", want: "0:0"},
		{name: "user", script: "id -u; id -g; touch /dev/shm/u; stat -c %u:%g /dev/shm/u", want: lines("1000", "1001", "1000:1001"),
			change: func(p *specs.Process) { p.User = specs.User{UID: 1000, GID: 1001} }},
		{name: "capabilities", script: allCaps, change: func(p *specs.Process) {
			k := []string{"CAP_SYS_ADMIN", "CAP_CHOWN"}
			p.Capabilities = &specs.LinuxCapabilities{Bounding: k, Permitted: k, Effective: k}
		}, want: "CapInh: 0000000000000000 CapPrm: 0000000000200001 CapEff: 0000000000200001 CapBnd: 0000000000200001 CapAmb: 0000000000000000"},
		{name: "standard output can be opened again", script: "echo x >/proc/self/fd/1", want: "x",
			change: func(p *specs.Process) { p.User.UID = 1000 }},
	})
	for _, uid := range []uint32{0, 1000} {
		out, status := b.execTerminal(func(p *specs.Process) { p.User.UID = uid }, "tty; stat -c %u $(tty); stty -a | grep -o 'rows 33; columns 77'; echo t >/dev/tty")
		if want := fmt.Sprintf("/dev/pts/0\r\n%d\r\nrows 33; columns 77\r\nt\r\n", uid); status != 0 || strings.ReplaceAll(out, "\n", "\r\n") != want && out != want {
			t.Errorf("user %d: exit status %d, %q, want %q", uid, status, out, want)
		}
	}
}

// execTerminal runs a script with a terminal and returns what it wrote there.
func (b *bundle) execTerminal(change func(*specs.Process), script string) (out string, status int) {
	b.t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	o := b.execOptions(nil, func(p *specs.Process) {
		p.Terminal, p.ConsoleSize = true, &specs.Box{Height: 33, Width: 77}
		change(p)
	}, script)
	o.Console = func() (*os.File, error) { return theirs, nil }
	p, err := b.store.Exec(b.t.Context(), o)
	theirs.Close()
	if err != nil {
		b.t.Fatal(err)
	}
	master := receiveFile(b.t, ours)
	defer master.Close()
	read := make(chan string)
	go func() {
		text, buf := "", make([]byte, 1000)
		for {
			n, err := master.Read(buf)
			text += string(buf[:max(n, 0)])
			if err != nil { // EIO, once the last process has closed it
				read <- text
				return
			}
		}
	}()
	status, err = p.Wait()
	if err = errors.Join(err, p.Close(context.Background())); err != nil {
		b.t.Fatal(err)
	}
	return <-read, status
}

func receiveFile(t testing.TB, socket *os.File) *os.File {
	t.Helper()
	control := make([]byte, 64)
	_, n, _, _, err := unix.Recvmsg(int(socket.Fd()), make([]byte, 64), control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		t.Fatal("no descriptor received", err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatal("no descriptor received", err)
	}
	return os.NewFile(uintptr(fds[0]), "received")
}

// wantExecInSame runs one more program in the container, which has all
// namespaces and the root of its first process.
func (b *bundle) wantExecInSame(first int) {
	b.t.Helper()
	p, err := b.store.Exec(b.t.Context(), b.execOptions(nil, nil, "exec sleep 1000"))
	if err != nil {
		b.t.Errorf("exec: %v", err)
		return
	}
	defer func() {
		if err := p.Close(context.Background()); err != nil {
			b.t.Error(err)
		}
	}()
	for _, name := range kinds {
		want, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", first, name))
		got, gotErr := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", p.PID, name))
		if err = errors.Join(err, gotErr); err != nil || got != want {
			b.t.Errorf("exec: %s namespace %s, want %s, %v", name, got, want, err)
		}
	}
	var want, got unix.Stat_t
	err = errors.Join(unix.Stat(fmt.Sprintf("/proc/%d/root/", first), &want), unix.Stat(fmt.Sprintf("/proc/%d/root/", p.PID), &got))
	if err != nil || got.Dev != want.Dev || got.Ino != want.Ino {
		b.t.Errorf("exec: another root, %v", err)
	}
}

// What cannot be run is an error in the words that engines look for, and
// leaves nothing behind.
func TestExecErrors(t *testing.T) {
	b := running(t, func(b *bundle) {
		b.write("rootfs/opt/plain", "", 0o644)
		b.write("rootfs/opt/broken", "neither script nor program", 0o755)
	})
	for _, c := range []struct {
		want   string
		change func(*specs.Process)
	}{
		{`exec: "nope": executable file not found in $PATH`, func(p *specs.Process) { p.Args = []string{"nope"} }},
		{`exec: "/nope": no such file or directory`, func(p *specs.Process) { p.Args = []string{"/nope"} }},
		{`exec: "/opt/plain": permission denied`, func(p *specs.Process) { p.Args = []string{"/opt/plain"} }},
		{`exec: "/opt/broken": exec format error`, func(p *specs.Process) { p.Args = []string{"/opt/broken"} }},
		{"no such file or directory (process.cwd)", func(p *specs.Process) { p.Cwd = "/nope" }},
		{"not a directory (process.cwd)", func(p *specs.Process) { p.Cwd = "/opt/plain" }},
		{"cwd", func(p *specs.Process) { p.Cwd = "relative" }},
		{"args", func(p *specs.Process) { p.Args = nil }},
		{"without a console socket", func(p *specs.Process) { p.Terminal = true }},
		{"RLIMIT_NOPE", func(p *specs.Process) { p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOPE"}} }},
	} {
		_, _, err := b.exec(c.change, "true")
		wantError(t, c.want, err, c.want)
	}
	if pids, err := b.store.Processes(b.id); err != nil || len(pids) > 2 {
		t.Errorf("processes: %v, %v", pids, err)
	}
	o := b.execOptions(nil, nil, "true")
	o.PIDFile = "/nonexistent/pid"
	_, err := b.execWith(o)
	wantError(t, "pid file", err, "pid file")
	o = b.execOptions(nil, nil, "true")
	o.ID = "tare-no-such-container"
	_, err = b.execWith(o)
	wantError(t, "exec", err, lifecycle.ErrNotExist.Error())
}

// A container that is created can be entered, one that has stopped not.
func TestExecStates(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "true")
	b.create()
	b.look([]inside{{name: "created", script: "tr -d '\\0' </proc/1/comm", want: "tare-init"}})
	if err := b.store.Start(t.Context(), b.id); err != nil {
		t.Fatal(err)
	}
	b.awaitStatus(specs.StateStopped)
	_, _, err := b.exec(nil, "true")
	wantError(t, "exec", err, "cannot exec in a stopped container")
	if !errors.Is(err, lifecycle.ErrNotRunning) {
		t.Error(err)
	}
}

// The configuration that counts is the one the container was made from.
func TestExecConfigIsKept(t *testing.T) {
	b := running(t, nil)
	for name, spoil := range map[string]func() error{
		"changed": func() error {
			b.Process.Env, b.Linux.Namespaces = []string{"PATH=/nowhere"}, nil
			b.save()
			return nil
		},
		"broken":  func() error { return os.WriteFile(b.path("config.json"), []byte("{"), 0o644) },
		"missing": func() error { return os.Remove(b.path("config.json")) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		b.look([]inside{{name: name, script: "echo $PATH", want: "/bin"}})
	}
}

// Who waits for the process hears of it by pid file and pidfd, and it is the
// right one.
func TestExecAnnounces(t *testing.T) {
	b := running(t, nil)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: b.path("pidfd"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o := b.execOptions(nil, nil, "exec sleep 1000")
	o.PIDFDSocket, o.PIDFile = b.path("pidfd"), b.path("pid")
	p, err := b.store.Exec(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(b.path("pid"))
	if err != nil || string(text) != strconv.Itoa(p.PID) {
		t.Errorf("pid file: %q, %v, want %d", text, err, p.PID)
	}
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	file, err := conn.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := unix.SetNonblock(int(file.Fd()), false); err != nil {
		t.Fatal(err)
	}
	pidfd := receiveFile(t, file)
	defer pidfd.Close()
	if pids, err := b.store.Processes(b.id); err != nil || len(pids) < 2 || !strings.Contains(fmt.Sprint(pids), string(text)) {
		t.Errorf("processes: %v, %v, want %s among them", pids, err, text)
	}
	if err := unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGUSR1, nil, 0); err != nil {
		t.Error(err)
	}
	status, err := p.Wait()
	if err = errors.Join(err, p.Close(context.Background())); err != nil || status != 128+int(unix.SIGUSR1) {
		t.Errorf("exit status %d, %v", status, err)
	}
}

// Processes come in side by side, and those that their caller ends are gone.
func TestExecConcurrent(t *testing.T) {
	b := running(t, nil)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			p, err := b.store.Exec(t.Context(), b.execOptions(nil, nil, map[bool]string{true: "exec sleep 1000", false: "exit 7"}[i%2 == 0]))
			if err != nil {
				t.Error(err)
				return
			}
			if i%2 == 1 {
				if status, err := p.Wait(); status != 7 || err != nil {
					t.Errorf("exit status %d, %v", status, err)
				}
			}
			if err := p.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// subCgroup makes a control group below the container's own, in each hierarchy.
func (b *bundle) subCgroup(name string) {
	b.t.Helper()
	for dir := range b.cgroupDirs() {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			b.t.Fatal(err)
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if value, err := os.ReadFile(filepath.Join(dir, file)); err == nil && strings.Contains(dir, "/cpuset/") {
				if err := os.WriteFile(filepath.Join(dir, name, file), value, 0); err != nil {
					b.t.Fatal(err)
				}
			}
		}
	}
}

// cgroupDirs are the directories of the container's control group.
func (b *bundle) cgroupDirs() map[string]bool {
	b.t.Helper()
	c, err := b.store.Load(b.id)
	if err != nil {
		b.t.Fatal(err)
	}
	dirs := map[string]bool{}
	for _, dir := range c.Cgroups {
		dirs[dir] = true
	}
	return dirs
}

// A process can run in a control group below the container's, and not outside.
func TestExecCgroup(t *testing.T) {
	m := machine(t)
	b := running(t, func(b *bundle) { b.without(specs.CgroupNamespace) })
	b.subCgroup("sub")
	member := func(cgroups map[string]string, controller, want string) {
		t.Helper()
		w, text := output(t)
		o := b.execOptions(w, nil, "cat /proc/self/cgroup")
		o.Cgroups = cgroups
		status, err := b.execWith(o)
		w.Close()
		out := text()
		for line := range strings.Lines(out) {
			parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
			if strings.Contains(","+parts[1]+",", ","+controller+",") && strings.HasSuffix(parts[2], want) {
				return
			}
		}
		t.Errorf("%v: status %d, %v, printed\n%s\nwant %s in %s", cgroups, status, err, out, want, controller)
	}
	if m.Hierarchy("pids") != nil {
		member(map[string]string{"pids": "sub", "memory": "/"}, "pids", b.id+"/sub")
		member(map[string]string{"pids": "sub", "memory": "/"}, "memory", b.id)
		member(map[string]string{"": "/sub"}, "freezer", b.id+"/sub")
	} else {
		member(map[string]string{"": "sub"}, "", b.id+"/sub")
	}
	for want, cgroups := range map[string]map[string]string{
		"leads out":                 {"": "../" + b.id + "x"},
		"no such file or directory": {"": "missing"},
		"no control group of":       {"nope": "sub"},
	} {
		o := b.execOptions(nil, nil, "true")
		o.Cgroups = cgroups
		_, err := b.execWith(o)
		wantError(t, want, err, want)
	}
}

// Nothing enters a paused container, unless it wants to wait.
func TestExecPaused(t *testing.T) {
	b := running(t, nil)
	c, err := b.store.Load(b.id)
	if err != nil {
		t.Fatal(err)
	}
	m, err := cgroup.Load(machine(t), c.Cgroups, "")
	if err != nil {
		t.Fatal(err)
	}
	freeze := func(frozen bool) {
		if err := m.Freeze(context.Background(), frozen); err != nil {
			t.Error(err)
		}
	}
	freeze(true)
	defer freeze(false)
	_, _, err = b.exec(nil, "true")
	wantError(t, "exec", err, "cannot exec in a paused container (use --ignore-paused to override)")
	o := b.execOptions(nil, nil, "exit 5")
	o.IgnorePaused = true
	done := make(chan error, 1)
	go func() {
		status, err := b.execWith(o)
		if err == nil && status != 5 {
			err = fmt.Errorf("exit status %d", status)
		}
		done <- err
	}()
	select {
	case err := <-done:
		t.Errorf("ran in a paused container: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	freeze(false)
	if err := <-done; err != nil {
		t.Error(err)
	}
	// One that has waited too long can be given up.
	freeze(true)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := b.store.Exec(ctx, o); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("exec with a deadline: %v", err)
	}
}

// On version 2, a first process that has moved below its control group has made
// that one unable to take processes; exec goes where it is.
func TestExecFollowsInit(t *testing.T) {
	m := machine(t)
	if m.Unified == nil || m.Unified.Mountpoint != "/sys/fs/cgroup" {
		t.Skip("version 2 is the virtual machine's")
	}
	b := running(t, func(b *bundle) { b.without(specs.CgroupNamespace) })
	b.subCgroup("init")
	var dir string
	for d := range b.cgroupDirs() {
		dir = d
	}
	pids, err := b.store.Processes(b.id)
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		if err := os.WriteFile(dir+"/init/cgroup.procs", []byte(strconv.Itoa(pid)), 0); err != nil && !errors.Is(err, unix.ESRCH) {
			t.Fatal(err)
		}
	}
	for range 100 { // the shell may have started a command meanwhile
		if err = os.WriteFile(dir+"/cgroup.subtree_control", []byte("+pids"), 0); err == nil {
			break
		}
		rest, _ := os.ReadFile(dir + "/cgroup.procs")
		for pid := range strings.FieldsSeq(string(rest)) {
			_ = os.WriteFile(dir+"/init/cgroup.procs", []byte(pid), 0) // it may be gone
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	b.look([]inside{{name: "exec", script: "cat /proc/self/cgroup", want: "0::/" + b.id + "/init"}})
}
