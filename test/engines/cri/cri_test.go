// Package cri asks containerd's CRI plugin, with tare-runtime below it, for what a
// kubelet asks for: pods, their containers and everything about them. runtime.md's
// operations and config.md's fields are tested here as Kubernetes uses them.
//
// It is a module of its own, as k8s.io/cri-api and gRPC are for this test alone.
package cri

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/tare-oci/tare/internal/testenv"
)

const image = "docker.io/library/base:latest"

// kubelet is the part of a kubelet that a test plays.
type kubelet struct {
	testing.TB
	runtime.RuntimeServiceClient
	images runtime.ImageServiceClient
	ctx    context.Context
}

func TestCRI(t *testing.T) {
	if !testenv.PrivateMachine(t) {
		return
	}
	testenv.Leaks(t, "tare-cri")
	testenv.CgroupParents(t, "tare-cri/*", "tare-cri")
	socket := testenv.Containerd(t, testenv.Runtime(t))
	if out, err := exec.Command(testenv.Tool(t, "ctr"), "--address", socket, "--namespace", "k8s.io", "images", "import", testenv.BaseImage(t)).CombinedOutput(); err != nil {
		t.Fatalf("import: %v\n%s", err, out)
	}
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	images, client := runtime.NewImageServiceClient(conn), runtime.NewRuntimeServiceClient(conn)
	for known := false; !known; time.Sleep(20 * time.Millisecond) { // containerd's event about the import
		status, err := images.ImageStatus(ctx, &runtime.ImageStatusRequest{Image: &runtime.ImageSpec{Image: image}})
		if err != nil {
			t.Fatal(err)
		}
		known = status.Image != nil
	}
	for _, part := range []struct {
		name string
		test func(kubelet)
	}{
		{"life of a container", life},
		{"exec", execSync},
		{"resources", resources},
		{"security", security},
		{"shared namespaces", shared},
		{"host namespaces", host},
		{"failures", failures},
		{"registry", registry},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(kubelet{t, client, images, ctx}) })
	}
}

// must gives the result of a call that has to succeed.
func must[T any](k kubelet, result T, err error) T {
	k.Helper()
	if err != nil {
		k.Fatal(err)
	}
	return result
}

// pod is a running sandbox; it goes when the test ends.
type pod struct {
	kubelet
	id     string
	config *runtime.PodSandboxConfig
}

func (k kubelet) pod(namespaces *runtime.NamespaceOption) pod {
	k.Helper()
	config := &runtime.PodSandboxConfig{
		Metadata:     &runtime.PodSandboxMetadata{Name: testenv.Name(k), Uid: testenv.Name(k), Namespace: "test"},
		Hostname:     "pod",
		LogDirectory: k.TempDir(),
		Linux: &runtime.LinuxPodSandboxConfig{
			CgroupParent:    "/tare-cri/pod",
			SecurityContext: &runtime.LinuxSandboxSecurityContext{NamespaceOptions: namespaces},
			Sysctls:         map[string]string{},
		},
	}
	if namespaces.Network == runtime.NamespaceMode_NODE {
		config.Hostname = ""
	}
	reply, err := k.RunPodSandbox(k.ctx, &runtime.RunPodSandboxRequest{Config: config})
	id := must(k, reply, err).PodSandboxId
	k.Cleanup(func() {
		// As a kubelet does it: stop may be called twice.
		for range 2 {
			if _, err := k.StopPodSandbox(k.ctx, &runtime.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
				k.Error(err)
			}
		}
		if _, err := k.RemovePodSandbox(k.ctx, &runtime.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
			k.Error(err)
		}
	})
	return pod{k, id, config}
}

// create makes a container of the pod; change adds to what is usual.
func (p pod) create(change func(*runtime.ContainerConfig), command ...string) (id string, err error) {
	name := testenv.Name(p)
	config := &runtime.ContainerConfig{
		Metadata: &runtime.ContainerMetadata{Name: name},
		Image:    &runtime.ImageSpec{Image: image},
		Command:  command,
		LogPath:  name,
		Linux: &runtime.LinuxContainerConfig{SecurityContext: &runtime.LinuxContainerSecurityContext{
			NamespaceOptions: p.config.Linux.SecurityContext.NamespaceOptions,
			Seccomp:          &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_RuntimeDefault},
		}},
	}
	if change != nil {
		change(config)
	}
	reply, err := p.CreateContainer(p.ctx, &runtime.CreateContainerRequest{PodSandboxId: p.id, Config: config, SandboxConfig: p.config})
	if err != nil {
		return "", err
	}
	_, err = p.StartContainer(p.ctx, &runtime.StartContainerRequest{ContainerId: reply.ContainerId})
	return reply.ContainerId, err
}

// start is create for what has to run.
func (p pod) start(change func(*runtime.ContainerConfig), command ...string) (id string) {
	p.Helper()
	id, err := p.create(change, command...)
	return must(p.kubelet, id, err)
}

func (k kubelet) status(id string) *runtime.ContainerStatus {
	k.Helper()
	reply, err := k.ContainerStatus(k.ctx, &runtime.ContainerStatusRequest{ContainerId: id})
	return must(k, reply, err).Status
}

// ended waits for the end of a container and returns what it wrote.
func (p pod) ended(id string, exitCode int32) (written string) {
	p.Helper()
	var status *runtime.ContainerStatus
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if status = p.status(id); status.State == runtime.ContainerState_CONTAINER_EXITED {
			break
		}
		if time.Now().After(end) {
			p.Fatalf("not ended within ten seconds: %v", status)
		}
	}
	if status.ExitCode != exitCode {
		p.Errorf("exit code %d (%s); want %d", status.ExitCode, status.Reason, exitCode)
	}
	log, err := os.ReadFile(status.LogPath)
	for line := range strings.Lines(string(must(p.kubelet, log, err))) {
		written += strings.SplitN(line, " ", 4)[3] // time, stream, whether the line is whole, text
	}
	return written
}

// in runs a command in a container.
func (k kubelet) in(id string, command ...string) string {
	k.Helper()
	reply, err := k.ExecSync(k.ctx, &runtime.ExecSyncRequest{ContainerId: id, Cmd: command, Timeout: 10})
	if must(k, reply, err); reply.ExitCode != 0 {
		k.Errorf("%q: exit code %d\n%s%s", command, reply.ExitCode, reply.Stdout, reply.Stderr)
	}
	return string(reply.Stdout)
}

func (k kubelet) equal(what, got, want string) {
	k.Helper()
	if got != want {
		k.Errorf("%s: %q; want %q", what, got, want)
	}
}

// own are the namespaces that a pod has by default.
func own() *runtime.NamespaceOption {
	return &runtime.NamespaceOption{Network: runtime.NamespaceMode_POD, Ipc: runtime.NamespaceMode_POD, Pid: runtime.NamespaceMode_CONTAINER}
}

func life(k kubelet) {
	p := k.pod(own())
	reply, err := p.PodSandboxStatus(p.ctx, &runtime.PodSandboxStatusRequest{PodSandboxId: p.id})
	if ip := must(k, reply, err).Status.Network.Ip; !strings.HasPrefix(ip, "10.89.0.") {
		p.Errorf("the pod's address is %q", ip)
	}
	volume := p.TempDir()
	id := p.start(func(c *runtime.ContainerConfig) {
		c.WorkingDir = "/tmp"
		c.Envs = []*runtime.KeyValue{{Key: "A", Value: []byte("x")}}
		c.Mounts = []*runtime.Mount{{HostPath: volume, ContainerPath: "/v"}}
	}, "sh", "-c", "echo $(hostname) $PWD $A; touch /v/ready; trap 'exit 3' TERM; while :; do usleep 10000; done")
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(volume, "ready")); err == nil {
			break
		}
		if time.Now().After(end) {
			p.Fatal("the container does nothing")
		}
	}
	if state := p.status(id).State; state != runtime.ContainerState_CONTAINER_RUNNING {
		p.Errorf("state %v", state)
	}
	if _, err := p.StopContainer(p.ctx, &runtime.StopContainerRequest{ContainerId: id, Timeout: 10}); err != nil {
		p.Error(err)
	}
	p.equal("log", p.ended(id, 3), "pod /tmp x\n")
	p.remove(id)
	p.equal("log", p.ended(p.start(nil, "sh", "-c", "echo again; exit 4"), 4), "again\n")
	stubborn := p.start(nil, "sleep", "1000") // as PID 1 it is not ended by SIGTERM
	if _, err := p.StopContainer(p.ctx, &runtime.StopContainerRequest{ContainerId: stubborn, Timeout: 1}); err != nil {
		p.Error(err)
	}
	p.ended(stubborn, 137)
}

func (k kubelet) remove(id string) {
	k.Helper()
	if _, err := k.RemoveContainer(k.ctx, &runtime.RemoveContainerRequest{ContainerId: id}); err != nil {
		k.Error(err)
	}
}

func execSync(k kubelet) {
	p := k.pod(own())
	id := p.start(nil, "sleep", "1000")
	p.equal("exec", p.in(id, "echo", "in", "here"), "in here\n")
	reply, err := p.ExecSync(p.ctx, &runtime.ExecSyncRequest{ContainerId: id, Cmd: []string{"sh", "-c", "echo out; echo err >&2; exit 5"}})
	if must(k, reply, err); reply.ExitCode != 5 || string(reply.Stdout) != "out\n" || string(reply.Stderr) != "err\n" {
		p.Errorf("exec: %v", reply)
	}
	// Probes end so. What they started ends with them.
	if _, err := p.ExecSync(p.ctx, &runtime.ExecSyncRequest{ContainerId: id, Cmd: []string{"sleep", "777"}, Timeout: 1}); err == nil || !strings.Contains(err.Error(), "timeout") {
		p.Errorf("exec that takes too long: %v", err)
	}
	if ps := p.in(id, "ps"); strings.Contains(ps, "sleep 777") {
		p.Errorf("it runs on:\n%s", ps)
	}
	if _, err := p.ExecSync(p.ctx, &runtime.ExecSyncRequest{ContainerId: id, Cmd: []string{"no-such-command"}}); err == nil || !strings.Contains(err.Error(), "executable file not found in $PATH") {
		p.Errorf("exec of a command that is not there: %v", err)
	}
}

func resources(k kubelet) {
	p := k.pod(own())
	limits := &runtime.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: 50000, CpuShares: 512, MemoryLimitInBytes: 64 << 20, OomScoreAdj: 500}
	id := p.start(func(c *runtime.ContainerConfig) { c.Linux.Resources = limits }, "sleep", "1000")
	read := func(v2, v1 string) string {
		p.Helper()
		return p.in(id, "sh", "-c", "cat /sys/fs/cgroup/"+v2+" 2>/dev/null || cat /sys/fs/cgroup/"+v1)
	}
	memory := func() string { return read("memory.max", "memory/memory.limit_in_bytes") }
	p.equal("memory", memory(), "67108864\n")
	if quota := read("cpu.max", "cpu/cpu.cfs_quota_us"); !strings.HasPrefix(quota, "50000") {
		p.Errorf("quota %q", quota)
	}
	p.equal("oom_score_adj", p.in(id, "cat", "/proc/1/oom_score_adj"), "500\n")
	limits.MemoryLimitInBytes, limits.CpuQuota = 128<<20, 25000
	if _, err := p.UpdateContainerResources(p.ctx, &runtime.UpdateContainerResourcesRequest{ContainerId: id, Linux: limits}); err != nil {
		p.Error(err)
	}
	p.equal("memory", memory(), "134217728\n")
	if quota := read("cpu.max", "cpu/cpu.cfs_quota_us"); !strings.HasPrefix(quota, "25000") {
		p.Errorf("quota %q", quota)
	}
	reply, err := p.ContainerStats(p.ctx, &runtime.ContainerStatsRequest{ContainerId: id})
	if stats := must(k, reply, err).Stats; stats.Memory.GetWorkingSetBytes().GetValue() == 0 || stats.Cpu.GetUsageCoreNanoSeconds().GetValue() == 0 {
		p.Errorf("statistics: %v", stats)
	}
	eater := p.start(func(c *runtime.ContainerConfig) {
		c.Linux.Resources = &runtime.LinuxContainerResources{MemoryLimitInBytes: 32 << 20}
	}, "tail", "/dev/zero")
	p.ended(eater, 137)
	p.equal("reason", p.status(eater).Reason, "OOMKilled")
}

func security(k kubelet) {
	p := k.pod(own())
	show := []string{"sh", "-c", "echo $(id -u):$(id -g) $(sed -n 's/^\\(CapEff\\|NoNewPrivs\\|Seccomp\\):\\t//p' /proc/self/status)"}
	p.equal("defaults", p.ended(p.start(nil, show...), 0), "0:0 00000000a80425fb 0 2\n")
	restricted := p.start(func(c *runtime.ContainerConfig) {
		s := c.Linux.SecurityContext
		s.RunAsUser, s.RunAsGroup = &runtime.Int64Value{Value: 1000}, &runtime.Int64Value{Value: 1000}
		s.NoNewPrivs, s.ReadonlyRootfs = true, true
		s.Capabilities = &runtime.Capability{DropCapabilities: []string{"ALL"}}
	}, show...)
	p.equal("restricted", p.ended(restricted, 0), "1000:1000 0000000000000000 1 2\n")
	readonly := p.start(func(c *runtime.ContainerConfig) { c.Linux.SecurityContext.ReadonlyRootfs = true }, "touch", "/tmp/x")
	if got := p.ended(readonly, 1); !strings.Contains(got, "Read-only file system") {
		p.Errorf("read-only root: %q", got)
	}
	p.equal("masked", p.ended(p.start(func(c *runtime.ContainerConfig) { c.Linux.SecurityContext.MaskedPaths = []string{"/proc/version"} }, "cat", "/proc/version"), 0), "")
}

func shared(k kubelet) {
	namespaces := own()
	namespaces.Pid = runtime.NamespaceMode_POD
	p := k.pod(namespaces)
	first := p.start(nil, "sh", "-c", "echo shm >/dev/shm/f; exec nc -ll -p 7777 -e echo over loopback")
	if got := p.ended(p.start(nil, "sh", "-c", "until nc 127.0.0.1 7777; do usleep 10000; done"), 0); got != "over loopback\n" {
		p.Errorf("containers of a pod share its network: %q", got)
	}
	second := p.start(nil, "sleep", "1000")
	p.equal("shared memory", p.in(second, "cat", "/dev/shm/f"), "shm\n")
	if ps := p.in(second, "ps"); !strings.Contains(ps, "nc -ll") || !strings.Contains(ps, "sleep 1000000") {
		p.Errorf("a shared process table:\n%s", ps)
	}
	debug := p.start(func(c *runtime.ContainerConfig) {
		c.Linux.SecurityContext.NamespaceOptions = &runtime.NamespaceOption{Pid: runtime.NamespaceMode_TARGET, TargetId: first}
	}, "ps")
	if got := p.ended(debug, 0); !strings.Contains(got, "nc -ll") {
		p.Errorf("a container in another's process table:\n%s", got)
	}
}

func host(k kubelet) {
	p := k.pod(&runtime.NamespaceOption{Network: runtime.NamespaceMode_NODE, Ipc: runtime.NamespaceMode_NODE, Pid: runtime.NamespaceMode_NODE})
	for _, kind := range []string{"net", "ipc", "pid"} {
		ours, err := os.Readlink("/proc/self/ns/" + kind)
		p.equal(kind, p.ended(p.start(nil, "readlink", "/proc/self/ns/"+kind), 0), must(k, ours, err)+"\n")
	}
}

func failures(k kubelet) {
	p := k.pod(own())
	for command, want := range map[string]string{
		"no-such-command":  "executable file not found in $PATH",
		"/no/such/command": "no such file or directory",
		"/etc/passwd":      "permission denied",
	} {
		id, err := p.create(nil, command)
		if err == nil || !strings.Contains(err.Error(), want) {
			p.Errorf("%s: %v; want %q", command, err, want)
		}
		if id == "" {
			continue
		}
		p.equal("reason", p.status(id).Reason, "StartError")
		p.remove(id)
	}
}
