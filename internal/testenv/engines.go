package testenv

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Runtime returns the path of the OCI runtime that engines are to use: ours, or
// the one that TARE_TEST_RUNTIME names, to see what an engine does with runc.
func Runtime(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("TARE_TEST_RUNTIME"); path != "" {
		return path
	}
	return Command(t, "tare-runtime")
}

// BaseImage writes the image that engines are tested with, docker.io/library/base:latest,
// as an archive that all of them load (that of "docker save"), and returns its path.
// In it are static busybox under the name of each applet, root and a user "app"
// (uid 1000). By itself it sleeps, which is all that a pod needs to be there.
func BaseImage(t testing.TB) string {
	t.Helper()
	busybox, err := os.ReadFile(Tool(t, "busybox"))
	if err != nil {
		t.Fatal(err)
	}
	entries := []tarEntry{
		{name: "bin/busybox", mode: 0o755, content: busybox},
		{name: "etc/passwd", mode: 0o644, content: []byte("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home:/bin/sh\n")},
		{name: "etc/group", mode: 0o644, content: []byte("root:x:0:\napp:x:1000:\n")},
	}
	for _, dir := range []string{"dev", "home", "mnt", "proc", "root", "run", "sys", "var"} {
		entries = append(entries, tarEntry{name: dir + "/", mode: 0o755})
	}
	entries = append(entries, tarEntry{name: "tmp/", mode: 0o1777})
	for applet := range strings.FieldsSeq(Run(t, "busybox", "--list")) {
		if applet != "busybox" {
			entries = append(entries, tarEntry{name: "bin/" + applet, link: "busybox"})
		}
	}
	layer := writeTar(t, entries)
	config := fmt.Sprintf(`{"architecture": %q, "os": "linux", "config": {"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sleep", "1000000"]},
		"rootfs": {"type": "layers", "diff_ids": ["sha256:%x"]}, "history": [{"created_by": "test"}]}`, runtime.GOARCH, sha256.Sum256(layer))
	archive := writeTar(t, []tarEntry{
		{name: "manifest.json", mode: 0o644, content: []byte(`[{"Config": "config.json", "RepoTags": ["docker.io/library/base:latest"], "Layers": ["layer.tar"]}]`)},
		{name: "config.json", mode: 0o644, content: []byte(config)},
		{name: "layer.tar", mode: 0o644, content: layer},
	})
	path := filepath.Join(t.TempDir(), "base.tar")
	if err := os.WriteFile(path, archive, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// tarEntry is a directory (its name ends in a slash), a symbolic link or a file.
type tarEntry struct {
	name, link string
	mode       int64
	content    []byte
}

func writeTar(t testing.TB, entries []tarEntry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := tar.Header{Typeflag: tar.TypeReg, Name: e.name, Linkname: e.link, Mode: e.mode, Size: int64(len(e.content))}
		switch {
		case e.link != "":
			h.Typeflag = tar.TypeSymlink
		case strings.HasSuffix(e.name, "/"):
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// Daemon starts an engine's daemon, which the test's cleanup stops, and waits until
// ready finds no fault any more. When the test fails, the end of the daemon's log
// is part of what it says.
func Daemon(t testing.TB, cmd *exec.Cmd, ready func() error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(cmd.Path)
	t.Cleanup(func() {
		file.Close()
		if content, err := os.ReadFile(path); t.Failed() && err == nil {
			t.Logf("%s's log ends with:\n%s", name, content[max(0, len(content)-4<<10):])
		}
	})
	logs := startServer(t, cmd)
	go io.Copy(file, logs)
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		err := ready()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s is not ready: %v", name, err)
		}
	}
}

// containerdConfig is of version 2: containerd 1.3 and later. Runtimes run as they
// are, without new scores for the kernel's killer: to lower them takes
// CAP_SYS_RESOURCE.
const containerdConfig = `version = 2
root = %[1]q
state = %[2]q
[grpc]
address = %[3]q
[ttrpc]
address = %[4]q
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "base:latest"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = %[7]q
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = %[5]q
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "tested"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.tested]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.tested.options]
BinaryName = %[6]q
`

const cniConfig = `{"cniVersion": "1.0.0", "name": "test", "plugins": [
	{"type": "bridge", "bridge": "cni-test", "isGateway": true, "ipam":
		{"type": "host-local", "ranges": [[{"subnet": "10.89.0.0/24"}]], "dataDir": %q}},
	{"type": "portmap", "capabilities": {"portMappings": true}}
]}`

// ContainerdHosts is the directory where Containerd's CRI plugin, and ctr with
// --hosts-dir, look how to speak with a registry: HOST:PORT/hosts.toml.
const ContainerdHosts = "/run/tare-containerd/certs.d"

// ContainerdHost tells Containerd how to speak with a registry of ours.
func ContainerdHost(t testing.TB, s Served) {
	t.Helper()
	scheme, ca := "http", ""
	if s.CA != "" {
		scheme, ca = "https", fmt.Sprintf("ca = %q\n", s.CA)
	}
	dir := filepath.Join(ContainerdHosts, s.Addr)
	text := fmt.Sprintf("server = %[1]q\n[host.%[1]q]\ncapabilities = [\"pull\", \"resolve\", \"push\"]\n%[2]s", scheme+"://"+s.Addr, ca)
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// ContainerdMirror tells Containerd to ask s for what is on host.
func ContainerdMirror(t testing.TB, host string, s Served) {
	t.Helper()
	dir := filepath.Join(ContainerdHosts, host)
	text := fmt.Sprintf("server = \"https://%s\"\n[host.%q]\ncapabilities = [\"pull\", \"resolve\"]\n", host, "http://"+s.Addr)
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// Containerd starts a containerd of the test's own, whose CRI plugin uses the
// runtime for pods, and returns its socket. The test is in PrivateMachine.
func Containerd(t testing.TB, runtime string) (socket string) {
	t.Helper()
	ctr := Tool(t, "ctr")
	dir := t.TempDir()
	socket = "/run/tare-containerd/sock" // t.TempDir can be too long for an address
	config, cni := filepath.Join(dir, "config.toml"), filepath.Join(dir, "net.d")
	text := fmt.Sprintf(containerdConfig, filepath.Join(dir, "root"), filepath.Join(dir, "state"), socket, socket+".ttrpc", cni, runtime, ContainerdHosts)
	err := errors.Join(
		os.Mkdir(cni, 0o700),
		os.WriteFile(filepath.Join(cni, "test.conflist"), fmt.Appendf(nil, cniConfig, filepath.Join(dir, "ipam")), 0o600),
		os.WriteFile(config, []byte(text), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	Daemon(t, exec.Command(Tool(t, "containerd"), "--config", config), func() error {
		return exec.Command(ctr, "--address", socket, "version").Run()
	})
	return socket
}

// CgroupParents removes, when the test ends, the empty control groups that engines
// keep for containers to come, and the plain directories that podman makes where it
// takes a cgroup v1 controller to be. Names are patterns of filepath.Match. What is
// in such a group is left for Leaks, called before, to find.
func CgroupParents(t testing.TB, names ...string) {
	t.Cleanup(func() {
		end := time.Now().Add(leakGrace)
		for _, name := range names {
			for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
				dirs, _ := filepath.Glob(pattern + name) // an error would be a bad pattern
				for _, dir := range dirs {
					if info, err := os.Stat(dir); err != nil || !info.IsDir() {
						continue
					}
					if err := removeEmpty(dir, end); err != nil {
						t.Errorf("remove control group: %v", err)
					}
				}
			}
		}
	})
}

// removeEmpty removes a control group that has no other below it.
func removeEmpty(dir string, end time.Time) error {
	for ; ; time.Sleep(20 * time.Millisecond) {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
		}
	}
}
