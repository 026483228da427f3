package engines

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
)

// docker starts a dockerd of the test's own, with its own containerd, a mirror of
// Docker Hub, and one image, "base".
func docker(t testing.TB, mirror testenv.Served) engine {
	t.Helper()
	const run, socket = "/run/tare-docker", "unix:///run/tare-docker.sock"
	dir, runtime, tool := t.TempDir(), testenv.Runtime(t), testenv.Tool(t, "docker")
	config, err := json.Marshal(map[string]any{
		"data-root": dir + "/data", "exec-root": run, "pidfile": run + ".pid", "hosts": []string{socket},
		"runtimes": map[string]any{"tested": map[string]string{"path": runtime}}, "default-runtime": "tested",
		"cgroup-parent":         "/tare-docker",
		"init-path":             testenv.Tool(t, "tini-static"),
		"oom-score-adjust":      0, // the default takes CAP_SYS_RESOURCE
		"storage-driver":        "overlay2",
		"max-download-attempts": 1,
		"registry-mirrors":      []string{"http://" + mirror.Addr},
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "daemon.json")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		t.Fatal(err)
	}
	// BuildKit inside dockerd knows no runtimes: it takes the runc it finds.
	if err := os.Symlink(runtime, filepath.Join(dir, "runc")); err != nil {
		t.Fatal(err)
	}
	d := engine{t, func(args ...string) *exec.Cmd {
		cmd := exec.Command(tool, args...)
		cmd.Env = append(os.Environ(), "DOCKER_HOST="+socket, "DOCKER_CONFIG="+dir)
		return cmd
	}}
	daemon := exec.Command(testenv.Tool(t, "dockerd"), "--config-file", path, "--log-level", "warn")
	daemon.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	t.Cleanup(func() { unix.Unmount(run+"/netns/default", unix.MNT_DETACH) }) // dockerd's; only there once a network was used
	testenv.Daemon(t, daemon, func() error { return d.command("version").Run() })
	t.Cleanup(func() {
		if ids := strings.Fields(d.run("ps", "--all", "--quiet")); len(ids) > 0 {
			d.run(append([]string{"rm", "--force"}, ids...)...)
		}
		// A container is gone a little before its shim, which dockerd leaves alone when it ends.
		d.eventually("the end of all shims", func() bool { return exec.Command("pgrep", "containerd-shim").Run() != nil })
	})
	d.run("load", "--quiet", "--input", testenv.BaseImage(t))
	return d
}

func TestDocker(t *testing.T) {
	if !testenv.PrivateMachine(t) {
		return
	}
	testenv.Leaks(t, "tare-docker")
	testenv.CgroupParents(t, "tare-docker/buildkit", "tare-docker")
	origin := testenv.Serve(t)
	d := docker(t, testenv.Mirror(t, origin, "", "docker.io"))
	for _, part := range []struct {
		name string
		test func(engine)
	}{
		{"run", dockerRun},
		{"exit codes", dockerExitCodes},
		{"exec", dockerExec},
		{"terminal", dockerTerminal},
		{"limits", dockerLimits},
		{"pause", dockerPause},
		{"stop", dockerStop},
		{"joined namespaces", dockerJoined},
		{"health check", dockerHealth},
		{"mounts", dockerMounts},
		{"security", dockerSecurity},
		{"network", dockerNetwork},
		{"build", dockerBuild},
		{"archives", dockerArchives},
		{"registry", dockerRegistry},
		{"mirror", func(d engine) { dockerMirror(d, origin) }},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(d.in(t)) })
	}
}

func dockerRun(d engine) {
	d.mentions("tested", "info", "--format", "{{.DefaultRuntime}}")
	d.says("hello", "run", "--rm", "base", "echo", "hello")
	if got := d.input("from outside", "run", "--rm", "--interactive", "base", "cat"); got != "from outside" {
		d.Errorf("stdin: %q", got)
	}
	d.says("/var x box 1000:1000", "run", "--rm", "--workdir", "/var", "--env", "A=x", "--hostname", "box", "--user", "app",
		"base", "sh", "-c", "echo $PWD $A $(hostname) $(id -u):$(id -g)")
	d.says("/sbin/docker-init", "run", "--rm", "--init", "base", "sh", "-c", "tr '\\0' '\\n' </proc/1/cmdline | head -n 1")
	d.says("made", "run", "--rm", "--workdir", "/made/on/the/way", "base", "sh", "-c", "[ $PWD = /made/on/the/way ] && echo made")
	id := d.run("run", "--detach", "base", "sh", "-c", "echo out; exit 4")
	d.says("4", "wait", id)
	d.says("out", "logs", id)
	d.fails(4, "", "start", "--attach", id) // a second time
	d.run("rm", id)
}

func dockerExitCodes(d engine) {
	d.fails(7, "", "run", "--rm", "base", "sh", "-c", "exit 7")
	d.fails(125, "unknown flag", "run", "--rm", "--no-such-flag", "base", "true")
	d.fails(125, "not a directory", "run", "--rm", "--volume", d.TempDir()+":/etc/passwd/x", "base", "true")
	d.fails(126, "permission denied", "run", "--rm", "base", "/etc/passwd")
	d.fails(126, "permission denied", "run", "--rm", "base", "/etc")
	d.fails(127, "executable file not found in $path", "run", "--rm", "base", "no-such-command")
	d.fails(127, "no such file or directory", "run", "--rm", "base", "/no/such/command")
}

func dockerExec(d engine) {
	d.run("run", "--detach", "--name", "ex", "base", "sleep", "1000")
	defer d.run("rm", "--force", "ex")
	d.says("in here", "exec", "ex", "echo", "in", "here")
	if got := d.input("piped", "exec", "--interactive", "ex", "cat"); got != "piped" {
		d.Errorf("stdin: %q", got)
	}
	d.says("1000 /tmp y", "exec", "--user", "app", "--workdir", "/tmp", "--env", "A=y", "ex", "sh", "-c", "echo $(id -u) $PWD $A")
	d.fails(9, "", "exec", "ex", "sh", "-c", "exit 9")
	for command, want := range map[string]string{"/etc/passwd": "permission denied", "no-such-command": "executable file not found in $PATH"} {
		// moby 20.10 has one status for both, and the message on stdout.
		if out, _, status := d.outcome("", "exec", "ex", command); status != 126 || !strings.Contains(out, want) {
			d.Errorf("exec %s: exit status %d\n%s", command, status, out)
		}
	}
	d.run("exec", "--detach", "ex", "sh", "-c", "echo done >/tmp/detached")
	d.eventually("a detached exec", func() bool { out, _, _ := d.outcome("", "exec", "ex", "cat", "/tmp/detached"); return out == "done\n" })
	d.mentions("sleep 1000", "top", "ex")
}

func dockerTerminal(d engine) {
	d.terminals()
}

func dockerLimits(d engine) {
	memory := cgroupFile("memory.max", "memory/memory.limit_in_bytes")
	pids := cgroupFile("pids.max", "pids/pids.max")
	cpu := cgroupFile("cpu.max", "cpu/cpu.cfs_quota_us")
	d.run("run", "--detach", "--name", "lim", "--memory", "64m", "--pids-limit", "40", "--cpus", "0.5", "base", "sleep", "1000")
	defer d.run("rm", "--force", "lim")
	d.says("67108864", "exec", "lim", "sh", "-c", memory)
	d.says("40", "exec", "lim", "sh", "-c", pids)
	d.mentions("50000", "exec", "lim", "sh", "-c", cpu)
	d.run("update", "--memory", "128m", "--memory-swap", "128m", "--cpus", "0.25", "--pids-limit", "30", "lim")
	d.says("134217728", "exec", "lim", "sh", "-c", memory)
	d.says("30", "exec", "lim", "sh", "-c", pids)
	d.mentions("25000", "exec", "lim", "sh", "-c", cpu)
	d.mentions("128MiB 1", "stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", "lim")

	id := d.run("create", "--memory", "32m", "--memory-swap", "32m", "base", "tail", "/dev/zero")
	d.fails(137, "", "start", "--attach", id)
	d.says("137 true", "inspect", "--format", "{{.State.ExitCode}} {{.State.OOMKilled}}", id)
	d.run("rm", id)
	d.fails(2, "can't fork", "run", "--rm", "--pids-limit", "3", "base", "sh", "-c", "for i in 1 2 3 4 5; do sleep 1 & done; wait")
	d.says("123", "run", "--rm", "--ulimit", "nofile=123:123", "base", "sh", "-c", "ulimit -n")
	d.fails(1, "operation not permitted", "run", "--rm", "--device-cgroup-rule", "c 1:1 w", "base", "sh", "-c", "mknod /tmp/mem c 1 1 && cat /tmp/mem")
}

func dockerPause(d engine) {
	d.run("run", "--detach", "--name", "still", "base", "sleep", "1000")
	defer d.run("rm", "--force", "still")
	d.run("pause", "still")
	d.says("paused", "inspect", "--format", "{{.State.Status}}", "still")
	d.fails(1, "paused", "exec", "still", "true")
	d.run("unpause", "still")
	d.says("on", "exec", "still", "echo", "on")
	d.run("pause", "still") // and is removed so
}

func dockerStop(d engine) {
	d.run("run", "--detach", "--name", "sig", "base", "sh", "-c", "trap 'exit 3' TERM; trap 'echo usr1' USR1; echo started; while :; do usleep 10000; done")
	defer d.run("rm", "--force", "sig")
	logged := func(want string) {
		d.Helper()
		d.eventually(want, func() bool { return strings.Contains(d.run("logs", "sig"), want) })
	}
	logged("started")
	d.run("kill", "--signal", "USR1", "sig")
	logged("usr1")
	d.run("stop", "--time", "10", "sig")
	d.says("exited 3", "inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "sig")
	d.run("restart", "--time", "0", "sig")
	d.says("running", "inspect", "--format", "{{.State.Status}}", "sig")
	d.run("kill", "sig")
	d.says("137", "wait", "sig")

	d.run("run", "--detach", "--name", "again", "--restart", "on-failure:2", "base", "false")
	defer d.run("rm", "--force", "again")
	d.eventually("two restarts", func() bool {
		return d.run("inspect", "--format", "{{.RestartCount}} {{.State.Status}}", "again") == "2 exited"
	})
}

func dockerJoined(d engine) {
	d.run("run", "--detach", "--name", "ns", "--ipc", "shareable", "base", "sh", "-c", "echo shm >/dev/shm/f; sleep 1000")
	defer d.run("rm", "--force", "ns")
	for _, kind := range []string{"pid", "net", "ipc"} {
		inode := "readlink /proc/self/ns/" + kind
		d.says(d.run("exec", "ns", "sh", "-c", inode), "run", "--rm", kindFlag[kind], "container:ns", "base", "sh", "-c", inode)
	}
	d.mentions("sleep 1000", "run", "--rm", "--pid", "container:ns", "base", "ps")
	d.says("shm", "run", "--rm", "--ipc", "container:ns", "base", "cat", "/dev/shm/f")
	d.mentions("dockerd", "run", "--rm", "--pid", "host", "base", "ps")
	d.mentions("docker0", "run", "--rm", "--network", "host", "base", "ip", "link")
}

func dockerHealth(d engine) {
	d.run("run", "--detach", "--name", "well", "--health-cmd", "test -e /tmp/healthy", "--health-interval", "200ms", "--health-retries", "1", "base", "sleep", "1000")
	defer d.run("rm", "--force", "well")
	status := func(want string) {
		d.Helper()
		d.eventually(want, func() bool { return d.run("inspect", "--format", "{{.State.Health.Status}}", "well") == want })
	}
	status("unhealthy")
	d.run("exec", "well", "touch", "/tmp/healthy")
	status("healthy")
}

func dockerMounts(d engine) {
	volume := d.TempDir()
	d.fails(1, "read-only file system", "run", "--rm", "--read-only", "base", "touch", "/etc/x")
	d.run("run", "--rm", "--read-only", "--tmpfs", "/tmp", "base", "touch", "/tmp/x", "/dev/shm/x")
	d.run("run", "--rm", "--volume", volume+":/v", "base", "touch", "/v/written")
	if _, err := os.Stat(filepath.Join(volume, "written")); err != nil {
		d.Error(err)
	}
	d.fails(1, "read-only file system", "run", "--rm", "--volume", volume+":/v:ro", "base", "touch", "/v/x")
	d.says("box", "run", "--rm", "--hostname", "box", "--volume", "named:/data", "base", "sh", "-c", "cat /etc/hostname >/data/h; cat /data/h")
	d.says("box", "run", "--rm", "--mount", "type=volume,source=named,destination=/data,readonly", "base", "cat", "/data/h")
	d.run("volume", "rm", "named")
	d.run("run", "--rm", "--mount", "type=bind,source="+volume+",destination=/v,bind-propagation=rslave", "base", "test", "-e", "/v/written")
	d.says("c 1 3", "run", "--rm", "--device", "/dev/null:/dev/nothing", "base", "sh", "-c",
		"stat -c '%F %t %T' /dev/nothing | sed 's/character special file/c/'")
	id := d.run("create", "base", "cat", "/copied")
	if err := os.WriteFile(filepath.Join(volume, "copied"), []byte("copied\n"), 0o644); err != nil {
		d.Fatal(err)
	}
	d.run("cp", filepath.Join(volume, "copied"), id+":/copied")
	d.says("copied", "start", "--attach", id)
	d.run("rm", id)
}

func dockerSecurity(d engine) {
	show := "sed -n 's/^\\(CapEff\\|NoNewPrivs\\|Seccomp\\):\\t//p' /proc/self/status | tr '\\n' ' '"
	d.says("00000000a80425fb 0 2 ", "run", "--rm", "base", "sh", "-c", show)
	d.says("0000000000000000 1 0 ", "run", "--rm", "--cap-drop", "all", "--security-opt", "no-new-privileges", "--security-opt", "seccomp=unconfined", "base", "sh", "-c", show)
	d.says("0000000000001000 0 2 ", "run", "--rm", "--cap-drop", "all", "--cap-add", "net_admin", "base", "sh", "-c", show)
	d.fails(1, "permission denied", "run", "--rm", "base", "sh", "-c", "mount -t tmpfs x /tmp || exit 1") // the status is busybox's
	d.fails(1, "", "run", "--rm", "base", "sh", "-c", "echo 1 >/proc/sysrq-trigger")
	d.says("", "run", "--rm", "base", "cat", "/proc/keys")
	d.says("5", "run", "--rm", "--sysctl", "net.ipv4.ip_default_ttl=5", "base", "cat", "/proc/sys/net/ipv4/ip_default_ttl")
	d.says("42", "run", "--rm", "--oom-score-adj", "42", "base", "cat", "/proc/self/oom_score_adj")
	d.run("run", "--rm", "--privileged", "base", "mount", "-t", "tmpfs", "x", "/tmp") // with runc it needs a machine that lacks no capability
	d.says("0 7 8", "run", "--rm", "--group-add", "7", "--group-add", "8", "base", "id", "-G")
}

func dockerNetwork(d engine) {
	d.run("network", "create", "--subnet", "10.91.0.0/24", "net1")
	defer d.run("network", "rm", "net1")
	d.run("run", "--detach", "--name", "web", "--network", "net1", "--publish", "127.0.0.1:8098:80", "base", "nc", "-ll", "-p", "80", "-e", "echo", "served")
	defer d.run("rm", "--force", "web")
	d.eventually("another container finds it by name", func() bool {
		out, _, _ := d.outcome("", "run", "--rm", "--network", "net1", "base", "nc", "web", "80")
		return out == "served\n"
	})
	if got := testenv.Run(d, "busybox", "nc", "127.0.0.1", "8098"); got != "served\n" {
		d.Errorf("at the published port: %q", got)
	}
	d.says("lo", "run", "--rm", "--network", "none", "base", "ls", "/sys/class/net")
}

func dockerBuild(d engine) {
	dir := d.write("Dockerfile", "FROM base\nENV A=built\nRUN echo $A >/made && id -u >>/made\nUSER app\nCMD [\"cat\", \"/made\"]\n")
	for _, buildkit := range []string{"0", "1"} {
		b := engine{d.TB, func(args ...string) *exec.Cmd {
			cmd := d.command(args...)
			cmd.Env = append(cmd.Env, "DOCKER_BUILDKIT="+buildkit)
			return cmd
		}}
		b.run("build", "--quiet", "--tag", "made"+buildkit, dir)
		b.says("built\n0", "run", "--rm", "made"+buildkit)
	}
}

// dockerArchives: docker runs what tare save writes, and tare loads what docker save writes.
func dockerArchives(d engine) {
	dir, command := d.TempDir(), testenv.Command(d, "tare")
	tare := engine{d.TB, func(args ...string) *exec.Cmd {
		return exec.Command(command, append([]string{"--root", dir + "/root"}, args...)...)
	}}
	d.run("run", "--name", "changed", "base", "sh", "-c", "echo changed >/changed; rm /etc/group")
	d.run("commit", "changed", "changed")
	d.run("rm", "changed")
	d.run("save", "--output", dir+"/docker.tar", "base", "changed")
	tare.mentions("changed:latest", "load", "--quiet", "--input", dir+"/docker.tar")
	tare.run("fsck")
	tare.run("tag", "changed", "ours:docker", "ours:oci")
	tare.run("save", "--quiet", "--output", dir+"/ours.tar", "ours:docker")
	d.mentions("ours:docker", "load", "--quiet", "--input", dir+"/ours.tar")
	d.says("changed", "run", "--rm", "ours:docker", "sh", "-c", "cat /changed; ls /etc/group 2>&- || true")
	d.says(d.run("image", "inspect", "--format", "{{.Id}}", "changed"), "image", "inspect", "--format", "{{.Id}}", "ours:docker")

	tare.run("save", "--quiet", "--format", "oci-archive", "--output", dir+"/oci.tar", "ours:oci")
	var major int
	if _, err := fmt.Sscanf(d.run("version", "--format", "{{.Server.Version}}"), "%d.", &major); err != nil {
		d.Fatal(err)
	}
	if major < 25 { // which is the first that takes them
		d.fails(1, "no such file or directory", "load", "--quiet", "--input", dir+"/oci.tar")
		return
	}
	d.run("load", "--quiet", "--input", dir+"/oci.tar")
	d.says("changed", "run", "--rm", "ours:oci", "cat", "/changed")
}

// dockerRegistry moves an image by tare serve, without and with TLS and a password.
// Docker looks at no certificate on loopback addresses.
func dockerRegistry(d engine) {
	open, secure := testenv.Serve(d), testenv.SecureServe(d)
	id := d.run("image", "inspect", "--format", "{{.Id}}", "base")
	d.run("tag", "base", secure.Addr+"/team/base:v1")
	d.fails(1, "no basic auth credentials", "push", "--quiet", secure.Addr+"/team/base:v1")
	d.input(secure.Password, "login", "--username", secure.User, "--password-stdin", secure.Addr)
	for _, addr := range []string{open.Addr, secure.Addr} {
		name := addr + "/team/base:v1"
		d.run("tag", "base", name)
		d.run("push", "--quiet", name)
		digest := d.run("image", "inspect", "--format", "{{index .RepoDigests 0}}", name)
		d.run("rmi", name)
		d.run("pull", "--quiet", name)
		d.says(id, "image", "inspect", "--format", "{{.Id}}", name)
		d.run("pull", "--quiet", digest)
		d.says("from a registry", "run", "--rm", digest, "echo", "from a registry")
		d.mentions(`"schemaVersion": 2`, "manifest", "inspect", "--insecure", name)
		d.run("push", "--quiet", name) // all is there
		d.fails(1, "manifest unknown", "pull", addr+"/team/base:none")
	}
}

// dockerMirror pulls what Docker takes for an image of Docker Hub's from a registry
// that is only in reach of tare serve.
func dockerMirror(d engine, origin testenv.Served) {
	pushed, name := origin.Addr+"/team/mirrored:v1", "team/mirrored:v1"
	d.run("tag", "base", pushed)
	d.run("push", "--quiet", pushed)
	d.run("pull", "--quiet", name)
	d.says("from a mirror", "run", "--rm", name, "echo", "from a mirror")
	d.run("rmi", name, pushed)
}
