package engines

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
)

// podmanConfig is podman's containers.conf for the tests. Limits are lowered, as
// the default asks for more open files than CAP_SYS_RESOURCE is needed for;
// runtime_supports_nocgroup is what podman 4.3 reads, other versions the plural.
const podmanConfig = `[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
init_path = %[1]q
[engine]
cgroup_manager = %[2]q
events_logger = "file"
runtime_supports_json = [%[3]q]
runtime_supports_nocgroup = [%[3]q]
helper_binaries_dir = [%[4]q, "/usr/lib/podman"]
[network]
network_backend = "netavark"
`

// podman prepares Podman with directories of its own and one image, "base".
func podman(t testing.TB, cgroupManager string) engine {
	t.Helper()
	dir, tool, runtime := t.TempDir(), testenv.Tool(t, "podman"), testenv.Runtime(t)
	config := filepath.Join(dir, "containers.conf")
	helpers := filepath.Join(filepath.Dir(filepath.Dir(tool)), "lib", "podman")
	text := fmt.Sprintf(podmanConfig, testenv.Tool(t, "catatonit"), cgroupManager, filepath.Base(runtime), helpers)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := engine{t, func(args ...string) *exec.Cmd {
		cmd := exec.Command(tool, append([]string{"--root", dir + "/root", "--runroot", "/run/tare-podman",
			"--storage-driver", "overlay", "--runtime", runtime}, args...)...)
		cmd.Env = append(os.Environ(), "CONTAINERS_CONF="+config)
		cmd.Dir = dir // where conmon leaves a file when a container runs out of memory
		return cmd
	}}
	p.run("load", "--quiet", "--input", testenv.BaseImage(t))
	t.Cleanup(func() {
		p.run("pod", "rm", "--all", "--force", "--time", "0")
		p.run("rm", "--all", "--force", "--time", "0")
		p.says("", "ps", "--all", "--quiet")
		unix.Unmount("/run/netns", unix.MNT_DETACH) // podman's; only there once a network was used
	})
	return p
}

func TestPodman(t *testing.T) {
	if !testenv.PrivateMachine(t) {
		return
	}
	testenv.Leaks(t, "libpod")
	testenv.CgroupParents(t, "libpod_parent/[0-9a-f]*", "libpod_parent") // those of pods, and of all
	p := podman(t, "cgroupfs")
	for _, part := range []struct {
		name string
		test func(engine)
	}{
		{"run", podmanRun},
		{"exit codes", podmanExitCodes},
		{"exec", podmanExec},
		{"terminal", podmanTerminal},
		{"limits", podmanLimits},
		{"pause", podmanPause},
		{"stop", podmanStop},
		{"pod", podmanPod},
		{"joined namespaces", podmanJoined},
		{"health check", podmanHealth},
		{"user namespace", podmanUserNamespace},
		{"mounts", podmanMounts},
		{"security", podmanSecurity},
		{"privileged", podmanPrivileged},
		{"network", podmanNetwork},
		{"build", podmanBuild},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(p.in(t)) })
	}
}

func podmanRun(p engine) {
	p.says("hello", "run", "--rm", "base", "echo", "hello")
	if got := p.input("from outside", "run", "--rm", "--interactive", "base", "cat"); got != "from outside" {
		p.Errorf("stdin: %q", got)
	}
	p.says("/var x box 1000:1000", "run", "--rm", "--workdir", "/var", "--env", "A=x", "--hostname", "box", "--user", "app",
		"base", "sh", "-c", "echo $PWD $A $(hostname) $(id -u):$(id -g)")
	p.says("catatonit", "run", "--rm", "--init", "base", "sh", "-c", "tr '\\0' '\\n' </proc/1/cmdline | head -n 1 | sed 's/.*podman-init/catatonit/'")
	id := p.run("run", "--detach", "base", "sh", "-c", "echo out; echo err >&2")
	p.says("0", "wait", id)
	p.says("out", "logs", id)
	p.says("exited 0", "inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", id)
	p.run("start", "--attach", id) // a second time, in the same bundle
	p.run("rm", id)
}

func podmanExitCodes(p engine) {
	p.fails(7, "", "run", "--rm", "base", "sh", "-c", "exit 7")
	p.fails(125, "unknown flag", "run", "--rm", "--no-such-flag", "base", "true")
	p.fails(126, "not a directory", "run", "--rm", "--volume", p.dir()+":/etc/passwd/x", "base", "true")
	p.fails(126, "permission denied", "run", "--rm", "base", "/etc/passwd")
	p.fails(126, "permission denied", "run", "--rm", "base", "/etc")
	p.fails(127, "executable file not found in $path", "run", "--rm", "base", "no-such-command")
	p.fails(127, "no such file or directory", "run", "--rm", "base", "/no/such/command")
}

func podmanExec(p engine) {
	p.run("run", "--detach", "--name", "e", "base", "sleep", "1000")
	defer p.run("rm", "--force", "--time", "0", "e")
	p.says("in here", "exec", "e", "echo", "in", "here")
	if got := p.input("piped", "exec", "--interactive", "e", "cat"); got != "piped" {
		p.Errorf("stdin: %q", got)
	}
	p.says("1000 /tmp y", "exec", "--user", "app", "--workdir", "/tmp", "--env", "A=y", "e", "sh", "-c", "echo $(id -u) $PWD $A")
	p.fails(9, "", "exec", "e", "sh", "-c", "exit 9")
	p.fails(126, "permission denied", "exec", "e", "/etc/passwd")
	p.fails(127, "not found", "exec", "e", "no-such-command")
	p.run("exec", "--detach", "e", "sh", "-c", "echo done >/tmp/detached")
	p.eventually("a detached exec", func() bool { out, _, _ := p.outcome("", "exec", "e", "cat", "/tmp/detached"); return out == "done\n" })
	p.mentions("CapEff:\t0000000000000000", "exec", "--user", "app", "e", "grep", "CapEff", "/proc/self/status")
	p.mentions("CapEff:\t000001ffffffffff", "exec", "--privileged", "e", "sh", "-c",
		"sed -n '/CapEff/s/[0-9a-f]\\{16\\}/000001ffffffffff/p' /proc/self/status")
	p.mentions("sleep 1000", "top", "e", "args")
}

func podmanTerminal(p engine) {
	p.terminals()
}

// cgroupFile is a shell's word for a limit's file, on cgroup v2 or else v1.
func cgroupFile(v2, v1 string) string {
	return fmt.Sprintf("cat /sys/fs/cgroup/%s 2>/dev/null || cat /sys/fs/cgroup/%s", v2, v1)
}

func podmanLimits(p engine) {
	memory := cgroupFile("memory.max", "memory/memory.limit_in_bytes")
	pids := cgroupFile("pids.max", "pids/pids.max")
	cpu := cgroupFile("cpu.max", "cpu/cpu.cfs_quota_us")
	p.run("run", "--detach", "--name", "l", "--memory", "64m", "--pids-limit", "40", "--cpus", "0.5", "base", "sleep", "1000")
	defer p.run("rm", "--force", "--time", "0", "l")
	p.says("67108864", "exec", "l", "sh", "-c", memory)
	p.says("40", "exec", "l", "sh", "-c", pids)
	p.mentions("50000", "exec", "l", "sh", "-c", cpu)
	p.mentions("67.11MB", "stats", "--no-stream", "--no-reset", "--format", "{{.MemUsage}}", "l")
	p.says("1", "stats", "--no-stream", "--no-reset", "--format", "{{.PIDS}}", "l")
	p.run("update", "--memory", "128m", "--cpus", "0.25", "l")
	p.says("134217728", "exec", "l", "sh", "-c", memory)
	p.mentions("25000", "exec", "l", "sh", "-c", cpu)

	id := p.run("create", "--memory", "32m", "--memory-swap", "32m", "base", "tail", "/dev/zero")
	p.fails(137, "", "start", "--attach", id)
	p.says("137", "inspect", "--format", "{{.State.ExitCode}}", id)
	p.run("rm", id)
	p.fails(2, "can't fork", "run", "--rm", "--pids-limit", "3", "base", "sh", "-c", "for i in 1 2 3 4 5; do sleep 1 & done; wait")
	p.says("123", "run", "--rm", "--ulimit", "nofile=123:123", "--ulimit", "nproc=99:99", "base", "sh", "-c", "ulimit -n")
}

func podmanPause(p engine) {
	p.run("run", "--detach", "--name", "s", "base", "sh", "-c", "while :; do date +%s%N >/tmp/tick; usleep 10000; done")
	defer p.run("rm", "--force", "--time", "0", "s")
	path := p.run("inspect", "--format", "{{.State.Pid}}", "s")
	tick := func() string {
		b, err := os.ReadFile("/proc/" + path + "/root/tmp/tick")
		if err != nil {
			p.Fatal(err)
		}
		return string(b)
	}
	p.run("pause", "s")
	p.says("paused", "inspect", "--format", "{{.State.Status}}", "s")
	before := tick()
	time.Sleep(100 * time.Millisecond)
	if tick() != before {
		p.Error("a paused container goes on")
	}
	p.fails(255, "improper", "exec", "s", "true")
	p.run("unpause", "s")
	p.eventually("an unpaused container goes on", func() bool { return tick() != before })
	p.run("pause", "s") // and is removed so
}

func podmanStop(p engine) {
	// With a handler in place before the signal: "started" is written by the shell.
	p.run("run", "--detach", "--name", "g", "base", "sh", "-c", "trap 'exit 3' TERM; trap 'echo usr1' USR1; echo started; while :; do usleep 10000; done")
	defer p.run("rm", "--force", "--time", "0", "g")
	logged := func(want string) {
		p.Helper()
		p.eventually(want, func() bool { return strings.Contains(p.run("logs", "g"), want) })
	}
	logged("started")
	p.run("kill", "--signal", "USR1", "g")
	logged("usr1")
	p.run("stop", "--time", "10", "g")
	p.says("exited 3", "inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "g")
	p.run("restart", "--time", "0", "g")
	p.says("running", "inspect", "--format", "{{.State.Status}}", "g")
	p.run("kill", "g")
	p.says("137", "wait", "g")

	p.run("run", "--detach", "--name", "stubborn", "base", "sh", "-c", "trap '' TERM; while :; do sleep 1; done")
	p.outcome("", "stop", "--time", "1", "stubborn")
	p.says("exited 137", "inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "stubborn")
	p.run("rm", "stubborn")
}

func podmanPod(p engine) {
	p.run("pod", "create", "--name", "pod", "--hostname", "podhost", "--infra-command", "/bin/sleep 1000", "--infra-image", "base", "--share", "net,ipc,uts")
	defer p.run("pod", "rm", "--force", "--time", "0", "pod")
	p.run("run", "--detach", "--pod", "pod", "--name", "server", "base", "nc", "-ll", "-p", "7777", "-e", "echo", "over loopback")
	p.eventually("two containers share loopback", func() bool {
		out, _, _ := p.outcome("", "run", "--rm", "--pod", "pod", "base", "nc", "127.0.0.1", "7777")
		return out == "over loopback\n"
	})
	p.says("podhost", "run", "--rm", "--pod", "pod", "base", "hostname")
	p.run("pod", "pause", "pod")
	p.run("pod", "unpause", "pod")
	p.mentions("server", "pod", "ps", "--ctr-names")
	p.run("pod", "stop", "--time", "0", "pod")
	p.run("pod", "start", "pod")
}

func podmanJoined(p engine) {
	p.run("run", "--detach", "--name", "n", "--ipc", "shareable", "base", "sh", "-c", "echo shm >/dev/shm/f; sleep 1000")
	defer p.run("rm", "--force", "--time", "0", "n")
	for _, kind := range []string{"pid", "net", "ipc", "uts"} {
		inode := "readlink /proc/self/ns/" + kind
		p.says(p.run("exec", "n", "sh", "-c", inode), "run", "--rm", kindFlag[kind], "container:n", "base", "sh", "-c", inode)
	}
	p.mentions("sleep 1000", "run", "--rm", "--pid", "container:n", "base", "ps")
	p.says("shm", "run", "--rm", "--ipc", "container:n", "base", "cat", "/dev/shm/f")
	host, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		p.Fatal(err)
	}
	p.says(host, "run", "--rm", "--pid", "host", "base", "readlink", "/proc/self/ns/pid")
	p.mentions("lo", "run", "--rm", "--network", "host", "base", "ip", "link")
}

var kindFlag = map[string]string{"pid": "--pid", "net": "--network", "ipc": "--ipc", "uts": "--uts"}

func podmanHealth(p engine) {
	// Podman runs checks by systemd's timers, or by hand as here.
	p.run("run", "--detach", "--name", "h", "--health-cmd", "test -e /tmp/healthy", "--health-interval", "disable", "--health-retries", "1", "base", "sleep", "1000")
	defer p.run("rm", "--force", "--time", "0", "h")
	p.fails(1, "", "healthcheck", "run", "h")
	p.run("exec", "h", "touch", "/tmp/healthy")
	p.run("healthcheck", "run", "h")
	p.says("healthy", "inspect", "--format", "{{.State.Health.Status}}", "h")
}

func podmanUserNamespace(p engine) {
	maps := []string{"--uidmap", "0:200000:5000", "--gidmap", "0:300000:5000"}
	p.says("0:0 200000 300000", append(append([]string{"run", "--rm"}, maps...), "base", "sh", "-c",
		"echo $(id -u):$(id -g) $(awk '{ print $2 }' /proc/self/uid_map) $(awk '{ print $2 }' /proc/self/gid_map)")...)
	p.run(append(append([]string{"run", "--detach", "--name", "u"}, maps...), "base", "sleep", "1000")...)
	defer p.run("rm", "--force", "--time", "0", "u")
	p.says("1000", "exec", "--user", "app", "u", "id", "-u")
	p.says("0 200000 5000", "exec", "u", "sh", "-c", "echo $(cat /proc/1/uid_map)")
	p.says("0 200000 5000", "run", "--rm", "--userns", "container:u", "base", "sh", "-c", "echo $(cat /proc/self/uid_map)")
	volume := p.dir()
	p.run(append(append([]string{"run", "--rm", "--volume", volume + ":/v:U"}, maps...), "base", "touch", "/v/mine")...)
}

func podmanMounts(p engine) {
	volume := p.dir()
	p.fails(1, "read-only file system", "run", "--rm", "--read-only", "base", "touch", "/etc/x")
	p.run("run", "--rm", "--read-only", "base", "touch", "/tmp/x", "/run/x", "/dev/shm/x")
	p.run("run", "--rm", "--volume", volume+":/v", "base", "touch", "/v/written")
	if _, err := os.Stat(filepath.Join(volume, "written")); err != nil {
		p.Error(err)
	}
	p.fails(1, "read-only file system", "run", "--rm", "--volume", volume+":/v:ro", "base", "touch", "/v/x")
	p.says("tmpfs nosuid noexec", "run", "--rm", "--tmpfs", "/t:size=1m,noexec", "base", "sh", "-c",
		"awk '$2 == \"/t\" { print $3, $4 }' /proc/mounts | sed 's/rw,nosuid,\\(nodev,\\)*noexec.*/nosuid noexec/'")
	p.says("user:x:0:0", "run", "--rm", "--mount", "type=tmpfs,destination=/etc,tmpcopyup", "base", "sh", "-c", "echo user:x:0:0 >/etc/passwd; cat /etc/passwd")
	p.says("box", "run", "--rm", "--hostname", "box", "--volume", "named:/data", "base", "sh", "-c", "cat /etc/hostname >/data/h; cat /data/h")
	p.says("box", "run", "--rm", "--volume", "named:/data:ro,exec", "base", "cat", "/data/h")
	p.run("volume", "rm", "named")
	p.says("c 1 3", "run", "--rm", "--device", "/dev/null:/dev/nothing", "base", "sh", "-c",
		"stat -c '%F %t %T' /dev/nothing | sed 's/character special file/c/'")
}

func podmanSecurity(p engine) {
	show := "sed -n 's/^\\(CapEff\\|NoNewPrivs\\|Seccomp\\):\\t//p' /proc/self/status | tr '\\n' ' '"
	p.says("00000000a80425fb 0 2 ", "run", "--rm", "base", "sh", "-c", show)
	p.says("0000000000000000 1 0 ", "run", "--rm", "--cap-drop", "all", "--security-opt", "no-new-privileges", "--security-opt", "seccomp=unconfined", "base", "sh", "-c", show)
	p.says("0000000000001000 0 2 ", "run", "--rm", "--cap-drop", "all", "--cap-add", "net_admin", "base", "sh", "-c", show)
	p.fails(1, "permission denied", "run", "--rm", "base", "sh", "-c", "mount -t tmpfs x /tmp || exit 1") // the status is busybox's
	p.fails(1, "", "run", "--rm", "base", "sh", "-c", "echo 1 >/proc/sysrq-trigger")
	p.says("", "run", "--rm", "base", "cat", "/proc/keys")
	p.says("5", "run", "--rm", "--sysctl", "net.ipv4.ip_default_ttl=5", "base", "cat", "/proc/sys/net/ipv4/ip_default_ttl")
	p.says("42", "run", "--rm", "--oom-score-adj", "42", "base", "cat", "/proc/self/oom_score_adj")
	p.says("0027", "run", "--rm", "--umask", "0027", "base", "sh", "-c", "umask")
	p.says("0 7 8", "run", "--rm", "--group-add", "7", "--group-add", "8", "base", "id", "-G")
}

// podmanPrivileged is where runc fails on a machine that lacks a capability.
func podmanPrivileged(p engine) {
	p.says("Seccomp:\t0", "run", "--rm", "--privileged", "base", "sh", "-c", "mount -t tmpfs x /mnt && dd if=/dev/kmsg of=/dev/null count=0 2>/dev/null && grep Seccomp: /proc/self/status")
	p.run("run", "--detach", "--privileged", "--name", "priv", "base", "sleep", "1000")
	defer p.run("rm", "--force", "--time", "0", "priv")
	p.run("exec", "--privileged", "priv", "mount", "-t", "tmpfs", "x", "/tmp")
}

func podmanNetwork(p engine) {
	p.run("network", "create", "--subnet", "10.90.0.0/24", "net1")
	defer p.run("network", "rm", "net1")
	p.run("run", "--detach", "--name", "web", "--network", "net1", "--publish", "127.0.0.1:8099:80", "base", "nc", "-ll", "-p", "80", "-e", "echo", "served")
	defer p.run("rm", "--force", "--time", "0", "web")
	p.says("10.90.0", "exec", "web", "sh", "-c", "ip -4 -o addr show eth0 | awk '{ print $4 }' | cut -d. -f1-3")
	p.eventually("another container reaches it", func() bool {
		out, _, _ := p.outcome("", "run", "--rm", "--network", "net1", "base", "nc", p.run("inspect", "--format", "{{.NetworkSettings.Networks.net1.IPAddress}}", "web"), "80")
		return out == "served\n"
	})
	p.says("lo", "run", "--rm", "--network", "none", "base", "ls", "/sys/class/net")
}

func podmanBuild(p engine) {
	dir := p.write("Containerfile", "FROM base\nENV A=built\nRUN echo $A >/made && id -u >>/made\nUSER app\nCMD [\"cat\", \"/made\"]\n")
	p.run("build", "--quiet", "--isolation", "oci", "--tag", "made", dir)
	p.says("built\n0", "run", "--rm", "made")
}
