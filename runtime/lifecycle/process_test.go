package lifecycle_test

import (
	"os"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
)

// A view is a container, and what a process sees in it.
type view struct {
	name   string
	change func(*bundle) // of runc's example configuration
	script string        // {id} stands for the container's name
	want   string        // what the script prints
	status int           // its exit status
}

func look(t *testing.T, views []view) {
	testenv.Root(t)
	testenv.Leaks(t)
	for _, v := range views {
		t.Run(v.name, func(t *testing.T) {
			b := newBundle(t, v.script)
			if v.change != nil {
				v.change(b)
			}
			b.Process.Args[len(b.Process.Args)-1] = strings.ReplaceAll(b.Process.Args[len(b.Process.Args)-1], "{id}", b.id)
			out, status := b.run()
			if want := strings.ReplaceAll(v.want, "{id}", b.id); out != want || status != v.status {
				t.Errorf("exit status %d, want %d; printed\n%s\nwant\n%s", status, v.status, out, want)
			}
		})
	}
}

// What config.json says of the process, as the process sees it.
func TestProcess(t *testing.T) {
	const caps = `grep ^Cap /proc/self/status | tr '\t\n' '  '`
	user := func(uid, gid uint32) func(*bundle) {
		return func(b *bundle) { b.Process.User = specs.User{UID: uid, GID: gid} }
	}
	look(t, []view{
		{name: "is process 1", script: "echo $$; ls -d /proc/[0-9]*", want: lines("1", "/proc/1")},
		{name: "hostname and domainname", script: "hostname; cat /proc/sys/kernel/domainname", want: lines("example", "example.org"),
			change: func(b *bundle) { b.Hostname, b.Domainname = "example", "example.org" }},
		{name: "environment", script: "env | sort", want: lines("A=1", "B=x y=z", "HOME=/h", "PATH=/bin", "PWD=/", "SHLVL=1"),
			change: func(b *bundle) { b.Process.Env = append(b.Process.Env, "B=x y=z", "A=1", "HOME=/h") }},
		{name: "a name twice in the environment", script: "env | sort", want: lines("A=2", "HOME=/root", "PATH=/bin", "PWD=/", "SHLVL=1"),
			change: func(b *bundle) { b.Process.Env = []string{"A=1", "HOME=/x", "PATH=/none", "A=2", "PATH=/bin", "HOME="} }},
		{name: "home of root", script: "echo $HOME", want: "/root"},
		{name: "home of a user", script: "echo $HOME", want: "/home/user", change: user(1000, 1000)},
		{name: "home of nobody known", script: "echo $HOME", want: "/", change: user(77, 77)},
		{name: "home without users", script: "echo $HOME", want: "/",
			change: func(b *bundle) { _ = os.Remove(b.path("rootfs/etc/passwd")) }},
		{name: "working directory", script: "readlink /proc/self/cwd", want: "/etc", change: func(b *bundle) { b.Process.Cwd = "/etc" }},
		{name: "working directory that is missing", script: "readlink /proc/self/cwd", want: "/a/b",
			change: func(b *bundle) { b.Process.Cwd, b.Root.Readonly = "/a/b", true }},
		{name: "working directory in a mount", script: "readlink /proc/self/cwd; touch x && ls", want: lines("/t/u", "x"),
			change: func(b *bundle) { b.mount("tmpfs", "tmpfs", "/t", ""); b.Process.Cwd, b.Root.Readonly = "/t/u", true }},
		{name: "command found in PATH", script: "", want: "echo: applet", change: func(b *bundle) {
			b.write("rootfs/first/say", "not executable", 0o644)
			b.mkdir("rootfs/second/say") // executable, and a directory
			b.write("rootfs/third/say", "#!/bin/sh\necho ${0##*/}: $1", 0o755)
			b.Process.Args = []string{"say", "applet"}
			b.Process.Env = []string{"PATH=/missing:/first:/second:relative::/bin/busybox:/third:/bin"}
			b.write("rootfs/third/say", "#!/bin/sh\necho echo: $1", 0o755)
		}},
		{name: "relative command", script: "", want: "here", change: func(b *bundle) {
			b.write("rootfs/w/d/say", "#!/bin/sh\necho here", 0o755)
			b.Process.Cwd, b.Process.Args = "/w", []string{"d/say"}
		}},
		{name: "user, group and umask", script: "id; umask", want: lines("uid=1000(user) gid=1000 groups=7,8", "0027"),
			change: func(b *bundle) {
				b.Process.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{7, 8}, Umask: ptr[uint32](0o27)}
			}},
		{name: "root has no groups of its caller", script: "id; umask", want: lines("uid=0(root) gid=0", "0022")},
		{name: "capabilities of root", script: caps,
			want: "CapInh: 0000000000000000 CapPrm: 0000000020000420 CapEff: 0000000020000420 CapBnd: 0000000020000420 CapAmb: 0000000000000000",
			change: func(b *bundle) {
				b.Process.Capabilities.Ambient = nil
				b.Process.NoNewPrivileges = false
			}},
		{name: "five different sets of a user", script: caps,
			want: "CapInh: 0000000000000420 CapPrm: 0000000000000400 CapEff: 0000000000000400 CapBnd: 0000000020000421 CapAmb: 0000000000000400",
			change: func(b *bundle) {
				b.Process.User = specs.User{UID: 1000, GID: 1000}
				b.Process.Capabilities = &specs.LinuxCapabilities{
					Bounding:    []string{"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_CHOWN"},
					Permitted:   []string{"CAP_NET_BIND_SERVICE", "CAP_KILL", "CAP_CHOWN"},
					Effective:   []string{"CAP_NET_BIND_SERVICE", "CAP_CHOWN"},
					Inheritable: []string{"CAP_NET_BIND_SERVICE", "CAP_KILL"},
					Ambient:     []string{"CAP_NET_BIND_SERVICE"},
				}
			}},
		{name: "no capabilities", script: caps,
			want:   "CapInh: 0000000000000000 CapPrm: 0000000000000000 CapEff: 0000000000000000 CapBnd: 0000000000000000 CapAmb: 0000000000000000",
			change: func(b *bundle) { b.Process.Capabilities = nil }},
		{name: "no new privileges", script: "grep NoNewPrivs /proc/self/status", want: "NoNewPrivs:\t1"},
		{name: "new privileges", script: "grep NoNewPrivs /proc/self/status", want: "NoNewPrivs:\t0",
			change: func(b *bundle) { b.Process.NoNewPrivileges = false }},
		{name: "resource limits", script: "ulimit -Sn; ulimit -Hn; ulimit -c; ulimit -Hs", want: lines("100", "200", "0", "8192"),
			change: func(b *bundle) {
				b.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}, {Type: "RLIMIT_CORE"},
					{Type: "RLIMIT_STACK", Soft: 1 << 20, Hard: 8 << 20}}
			}},
		// Fewer than the runtime itself has open, and nothing that a shell could do without.
		{name: "hardly any descriptors", script: "ulimit -Sn; ulimit -Hn", want: lines("4", "5"),
			change: func(b *bundle) { b.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 4, Hard: 5}} }},
		{name: "hardly any descriptors in a user namespace", script: "ulimit -Sn; ulimit -Hn", want: lines("4", "5"),
			change: func(b *bundle) {
				b.userNamespace()
				b.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 4, Hard: 5}, {Type: "RLIMIT_FSIZE"}, {Type: "RLIMIT_NPROC", Soft: 1, Hard: 1}}
			}},
		{name: "oom score", script: "cat /proc/self/oom_score_adj", want: "321",
			change: func(b *bundle) { b.Process.OOMScoreAdj = ptr(321) }},
		{name: "descriptors", script: "ls /proc/self/fd | wc -l; ls /proc/1/fd; true", want: lines("4", "0", "1", "2"),
			change: func(b *bundle) { b.stdin = openNull(b.t) }},
		{name: "closed standard input", script: "ls /proc/1/fd; true", want: lines("1", "2")},
		{name: "session leader", script: "cut -d' ' -f5,6 /proc/1/stat; cut -d' ' -f7 /proc/1/stat", want: lines("1 1", "0")},
		{name: "exit status", script: "exit 42", status: 42},
		{name: "killed by a signal", script: "", status: 128 + 6, change: func(b *bundle) {
			// Process 1 does not get a signal it has no handler for, unless it comes from outside.
			b.without(specs.PIDNamespace)
			b.Process.Args[2] = "kill -ABRT $$"
			b.Mounts[0] = specs.Mount{Type: "bind", Source: "/proc", Destination: "/proc", Options: []string{"rbind"}}
		}},
		{name: "its own executable cannot be changed", script: "readlink /proc/1/exe; grep -c tare /proc/1/maps", status: 1,
			want: lines("/bin/busybox", "0")},
		{name: "session keyring", script: "grep '_ses.{id}:' /proc/keys | tr -s ' ' | cut -d' ' -f5,9", want: "3f1b0000 _ses.{id}:",
			change: func(b *bundle) { b.Linux.MaskedPaths = nil }},
		{name: "session keyring in a user namespace", script: "grep '_ses.{id}:' /proc/keys | tr -s ' ' | cut -d' ' -f5,9", want: "3f130008 _ses.{id}:",
			change: func(b *bundle) { b.userNamespace(); b.Linux.MaskedPaths = nil }},
		{name: "inheritable capabilities outside the bounding set", script: caps,
			want: "CapInh: 0000000000000020 CapPrm: 0000000000000020 CapEff: 0000000000000020 CapBnd: 0000000000000020 CapAmb: 0000000000000000",
			change: func(b *bundle) {
				kill := []string{"CAP_KILL"}
				b.Process.Capabilities = &specs.LinuxCapabilities{Bounding: kill, Permitted: kill, Effective: []string{"CAP_KILL", "CAP_CHOWN"},
					Inheritable: []string{"CAP_KILL", "CAP_CHOWN"}, Ambient: []string{"CAP_CHOWN"}}
			}},
	})
}

func openNull(t testing.TB) *os.File {
	t.Helper()
	f, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// A seccomp filter comes into force before the process's program does, and
// does not stop what the container's start needs.
func TestSeccomp(t *testing.T) {
	noMkdir := &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Syscalls:      []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno, ErrnoRet: ptr[uint](1)}},
	}
	var views []view
	for _, nnp := range []bool{true, false} {
		for _, uid := range []uint32{0, 1000} {
			name, want := "new privileges", "NoNewPrivs:\t0"
			if nnp {
				name, want = "no "+name, "NoNewPrivs:\t1"
			}
			name += map[uint32]string{0: ", root", 1000: ", user"}[uid]
			views = append(views, view{name: name, script: "cd /dev/shm; mkdir x; touch y && grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status",
				want: lines("mkdir: can't create directory 'x': Operation not permitted", want, "Seccomp:\t2"),
				change: func(b *bundle) {
					b.Linux.Seccomp, b.Process.NoNewPrivileges = noMkdir, nnp
					b.Process.User = specs.User{UID: uid, GID: uid}
				}})
		}
	}
	views = append(views, view{name: "killed by the filter", script: "mkdir /x; echo $?", want: lines("Bad system call", "159"),
		change: func(b *bundle) {
			b.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow,
				Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActKillProcess}}}
		}})
	look(t, views)
}

// In a new user namespace the container's root is nobody on the host, and yet
// gets what its configuration says.
func TestUserNamespace(t *testing.T) {
	look(t, []view{
		{name: "maps", script: "id -u; tr -s ' ' </proc/self/uid_map; tr -s ' ' </proc/self/gid_map", want: lines("0", " 0 100000 2000", " 0 100000 2000"),
			change: (*bundle).userNamespace},
		{name: "user and groups", script: "id -u; id -g; id -G; grep CapEff /proc/self/status", want: lines("1000", "1001", "1001 5", "CapEff:\t0000000000000020"),
			change: func(b *bundle) {
				b.userNamespace()
				b.Process.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{5}}
				k := []string{"CAP_KILL"}
				b.Process.Capabilities = &specs.LinuxCapabilities{Bounding: k, Effective: k, Permitted: k, Inheritable: k, Ambient: k}
			}},
		{name: "sources only root can reach", script: "cat /secret/f /file; ls /tree/sub", want: lines("one", "two", "here"),
			change: func(b *bundle) {
				b.userNamespace()
				b.write("private/dir/f", "one\n", 0o644)
				b.write("private/file", "two\n", 0o644)
				b.write("private/tree/sub/here", "", 0o644)
				if err := os.Chmod(b.path("private"), 0o700); err != nil {
					b.t.Fatal(err)
				}
				b.mount("bind", b.path("private/dir"), "/secret", "bind,ro")
				b.mount("bind", b.path("private/file"), "/file", "bind,ro,nosuid")
				b.mount("bind", "private/tree", "/tree", "rbind,rro")
			}},
		{name: "devices", script: "echo x >/dev/null && head -c3 /dev/zero | wc -c; ls /dev | grep -v core; stat -c '%t,%T %F' /dev/null",
			want: lines("3", "fd", "full", "kmsg", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
				"urandom", "zero", "1,3 character special file"),
			change: func(b *bundle) {
				b.userNamespace()
				b.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/full", Type: "c", Major: 1, Minor: 7}, {Path: "/dev/kmsg", Type: "c", Major: 1, Minor: 11}}
			}},
		{name: "resource limits", script: "ulimit -Sn; ulimit -Hn", want: lines("100", "200"),
			change: func(b *bundle) {
				b.userNamespace()
				b.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}}
			}},
		{name: "sysctl of its own network", script: "cat /proc/sys/net/ipv4/ip_forward; ifconfig lo | grep -o 'UP LOOPBACK'", want: lines("1", "UP LOOPBACK"),
			change: func(b *bundle) {
				b.userNamespace()
				b.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
			}},
		{name: "root file system of its root", script: "touch /x && stat -c %u /x /bin", want: lines("0", "0"),
			change: (*bundle).userNamespace},
		{name: "with a filter and new privileges", script: "grep Seccomp: /proc/self/status", want: "Seccomp:\t2",
			change: func(b *bundle) {
				b.userNamespace()
				b.Process.NoNewPrivileges = false
				b.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
			}},
	})
}

// What needs CAP_SYS_RESOURCE is done where the runtime has it (in the virtual
// machine), and told where it has not.
func TestPrivileges(t *testing.T) {
	m := machine(t)
	testenv.Leaks(t)
	for _, c := range []struct {
		name, script, want, err string
		change                  func(*bundle)
	}{
		{"negative oom score", "cat /proc/self/oom_score_adj", "-321", "process.oomScoreAdj",
			func(b *bundle) { b.Process.OOMScoreAdj = ptr(-321) }},
		{"limit above the caller's", "ulimit -Hn", "1048000", "process.rlimits[0]",
			func(b *bundle) {
				b.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1048000, Hard: 1048000}}
			}},
		{"limit above the caller's, in a user namespace", "ulimit -Hn", "1048000", "process.rlimits[0]",
			func(b *bundle) {
				b.userNamespace()
				b.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1048000, Hard: 1048000}}
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBundle(t, c.script)
			c.change(b)
			out, _, err := b.tryRun(t.Context())
			if m.HasCap(unix.CAP_SYS_RESOURCE) {
				if err != nil || out != c.want {
					t.Errorf("%q, %v; want %q", out, err, c.want)
				}
				return
			}
			wantError(t, "run", err, c.err)
			b.wantNothing()
		})
	}
}
