package engines

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/tare-oci/tare/internal/testenv"
)

const ctrImage = "docker.io/library/base:latest"

func TestContainerd(t *testing.T) {
	if !testenv.PrivateMachine(t) {
		return
	}
	testenv.Leaks(t, "tare-ctr")
	testenv.CgroupParents(t, "tare-ctr") // ctr's namespace
	runtime, tool := testenv.Runtime(t), testenv.Tool(t, "ctr")
	socket := testenv.Containerd(t, runtime)
	c := engine{t, func(args ...string) *exec.Cmd {
		if len(args) > 0 && args[0] == "run" {
			args = append([]string{"run", "--runc-binary", runtime}, args[1:]...)
		}
		return exec.Command(tool, append([]string{"--address", socket, "--namespace", "tare-ctr"}, args...)...)
	}}
	c.run("images", "import", testenv.BaseImage(t))
	for _, part := range []struct {
		name string
		test func(engine)
	}{
		{"run", ctrRun},
		{"exec", ctrExec},
		{"terminal", ctrTerminal},
		{"pause", ctrPause},
		{"kill", ctrKill},
		{"metrics", ctrMetrics},
		{"failures", ctrFailures},
		{"registry", ctrRegistry},
		{"mirror", ctrMirror},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(c.in(t)) })
	}
}

// start starts a container in the background and returns how to remove it.
func (c engine) start(name string, command ...string) (remove func()) {
	c.Helper()
	c.run(append([]string{"run", "--detach", ctrImage, name}, command...)...)
	return func() { c.Helper(); c.remove(name) }
}

func (c engine) remove(name string) {
	c.Helper()
	c.run("tasks", "delete", "--force", name)
	c.run("containers", "delete", name)
}

// linger ends a container's script: ctr 1.6 stops copying what it writes as soon as it
// has ended.
const linger = "usleep 200000"

func ctrRun(c engine) {
	c.says("hello", "run", "--rm", ctrImage, "r1", "sh", "-c", "echo hello; "+linger)
	// Not "cat": ctr 1.6 does not pass on that stdin has ended.
	if got := c.input("from outside\n", "run", "--rm", ctrImage, "r2", "sh", "-c", "head -n 1; "+linger); got != "from outside" {
		c.Errorf("stdin: %q", got)
	}
	c.fails(7, "", "run", "--rm", ctrImage, "r3", "sh", "-c", "exit 7")
	c.says("/tmp x", "run", "--rm", "--cwd", "/tmp", "--env", "A=x", ctrImage, "r4", "sh", "-c", "echo $PWD $A; "+linger)
	c.fails(1, "read-only file system", "run", "--rm", "--read-only", ctrImage, "r5", "sh", "-c", "touch /tmp/x || { "+linger+"; exit 1; }")
	c.mentions("lo", "run", "--rm", "--net-host", ctrImage, "r6", "sh", "-c", "ip link; "+linger)
	c.says("mounted", "run", "--rm", "--mount", "type=tmpfs,src=tmpfs,dst=/mnt,options=size=1m:nosuid", ctrImage, "r8", "sh", "-c", "grep -q ' /mnt tmpfs .*size=1024k' /proc/mounts && echo mounted; "+linger)
	c.says("Seccomp:\t2", "run", "--rm", "--seccomp", ctrImage, "r9", "sh", "-c", "grep Seccomp: /proc/self/status; "+linger)
}

func ctrExec(c engine) {
	defer c.start("e", "sleep", "1000")()
	c.says("in here", "tasks", "exec", "--exec-id", "e1", "e", "sh", "-c", "echo in here; "+linger)
	if got := c.input("piped", "tasks", "exec", "--exec-id", "e2", "e", "cat"); got != "piped" {
		c.Errorf("stdin: %q", got)
	}
	c.says("1000 /tmp", "tasks", "exec", "--exec-id", "e3", "--user", "1000", "--cwd", "/tmp", "e", "sh", "-c", "echo $(id -u) $PWD; "+linger)
	c.fails(9, "", "tasks", "exec", "--exec-id", "e4", "e", "sh", "-c", "exit 9")
	c.fails(1, "executable file not found in $path", "tasks", "exec", "--exec-id", "e5", "e", "no-such-command")
	c.run("tasks", "exec", "--detach", "--exec-id", "e6", "e", "sleep", "1000")
	processes := func() int { return strings.Count(c.run("tasks", "ps", "e"), "\n") } // a heading, and a last line without its end
	if got := processes(); got != 2 {
		c.Errorf("tasks ps: %d processes; want 2", got)
	}
	c.run("tasks", "kill", "--exec-id", "e6", "--signal", "SIGKILL", "e")
	c.eventually("the end of a detached exec", func() bool { return processes() == 1 })
}

func ctrTerminal(c engine) {
	if got := c.terminal("typed\n", "run", "--rm", "--tty", ctrImage, "t1", "sh", "-c", "tty; read x; echo =$x=; "+linger); !strings.Contains(got, "/dev/pts/0") || !strings.Contains(got, "=typed=") {
		c.Errorf("on a terminal: %q", got)
	}
	defer c.start("t2", "sleep", "1000")()
	if got := c.terminal("", "tasks", "exec", "--tty", "--exec-id", "t3", "t2", "sh", "-c", onTerminal); !strings.Contains(got, "/dev/pts/0") || !strings.Contains(got, "33 77") {
		c.Errorf("exec on a terminal: %q", got)
	}
}

func ctrPause(c engine) {
	defer c.start("p", "sleep", "1000")()
	c.run("tasks", "pause", "p")
	c.mentions("PAUSED", "tasks", "ls")
	c.run("tasks", "resume", "p")
	c.mentions("RUNNING", "tasks", "ls")
	c.says("on", "tasks", "exec", "--exec-id", "p1", "p", "sh", "-c", "echo on; "+linger)
}

func ctrKill(c engine) {
	defer c.start("k", "sh", "-c", "trap 'exit 3' TERM; touch /tmp/ready; while :; do usleep 10000; done")()
	c.run("tasks", "exec", "--exec-id", "k1", "k", "sh", "-c", "until [ -e /tmp/ready ]; do usleep 1000; done")
	c.run("tasks", "kill", "--signal", "SIGTERM", "k")
	c.eventually("its end", func() bool { return strings.Contains(c.run("tasks", "ls"), "STOPPED") })
	_, stderr, status := c.outcome("", "tasks", "kill", "--signal", "SIGKILL", "k")
	if status == 0 || !strings.Contains(stderr, "process already finished") {
		c.Errorf("kill of one that has ended: exit status %d, %q", status, stderr)
	}
}

func ctrMetrics(c engine) {
	c.run("run", "--detach", "--memory-limit", "67108864", ctrImage, "m", "sleep", "1000")
	defer c.remove("m")
	limit, err := os.ReadFile("/sys/fs/cgroup/memory/tare-ctr/m/memory.limit_in_bytes")
	if errors.Is(err, fs.ErrNotExist) { // cgroup v2
		limit, err = os.ReadFile("/sys/fs/cgroup/tare-ctr/m/memory.max")
	}
	if err != nil || string(limit) != "67108864\n" {
		c.Errorf("memory limit: %q, %v", limit, err)
	}
	c.mentions("memory.usage", "tasks", "metrics", "m")
	c.mentions("pids.current", "tasks", "metrics", "m")
}

func ctrFailures(c engine) {
	for want, command := range map[string]string{
		"executable file not found in $path": "no-such-command",
		"no such file or directory":          "/no/such/command",
		"permission denied":                  "/etc/passwd",
	} {
		c.fails(1, want, "run", "--rm", ctrImage, "f", command)
	}
	c.fails(1, "not a directory", "run", "--rm", "--mount", "type=bind,src=/tmp,dst=/etc/passwd/x,options=rbind", ctrImage, "f", "true")
	c.says("", "containers", "ls", "--quiet")
	c.says("", "tasks", "ls", "--quiet")
}

// ctrRegistry moves an image by tare serve, without and with TLS and a password.
func ctrRegistry(c engine) {
	open, secure := testenv.Serve(c), testenv.SecureServe(c)
	testenv.ContainerdHost(c, open)
	testenv.ContainerdHost(c, secure)
	images := func(verb, name string, options ...string) []string {
		return append(append([]string{"images", verb, "--hosts-dir", testenv.ContainerdHosts}, options...), name)
	}
	for addr, options := range map[string][]string{open.Addr: nil, secure.Addr: {"--user", secure.User + ":" + secure.Password}} {
		name := addr + "/team/base:v1"
		c.run("images", "tag", ctrImage, name)
		c.run(images("push", name, options...)...)
		c.run("images", "rm", name)
		c.run(images("pull", name, options...)...)
		c.says("from a registry", "run", "--rm", name, "fr", "sh", "-c", "echo from a registry; "+linger)
		c.run("images", "rm", name)
	}
	c.fails(1, "401 unauthorized", images("pull", secure.Addr+"/team/base:v1")...)
	c.fails(1, "not found", images("pull", open.Addr+"/team/base:none")...)
}

// ctrMirror pulls from a registry that is only in reach of tare serve.
func ctrMirror(c engine) {
	const host = "registry.invalid"
	origin := testenv.Serve(c)
	testenv.ContainerdHost(c, origin)
	testenv.ContainerdMirror(c, host, testenv.Mirror(c, origin, "copy", host))
	pushed, name := origin.Addr+"/team/base:v1", host+"/team/base:v1"
	c.run("images", "tag", ctrImage, pushed)
	c.run("images", "push", "--hosts-dir", testenv.ContainerdHosts, pushed)
	c.run("images", "pull", "--hosts-dir", testenv.ContainerdHosts, name)
	c.says("from a mirror", "run", "--rm", name, "fm", "sh", "-c", "echo from a mirror; "+linger)
	c.run("images", "rm", pushed, name)
}
