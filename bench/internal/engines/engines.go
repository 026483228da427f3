// Package engines is what the benchmarks of pulling and running images share: tare, Podman with a store of its own, and a
// registry to pull from (Distribution Spec 1.1.1).
package engines

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/distribution/server"
	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/distribution/server/storage/fs"
)

// Build builds tare as it is released, into dir.
func Build(ctx context.Context, dir string) (path string, err error) {
	path = filepath.Join(dir, "tare")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "github.com/tare-oci/tare/cmd/tare")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	return path, run(build)
}

// Umoci builds an umoci that reads zstd, which Debian's does not yet, into dir. Its go.mod replaces modules, which go install does
// not take; required by another module it can be built.
func Umoci(ctx context.Context, dir string) (path string, err error) {
	const command, version = "github.com/opencontainers/umoci/cmd/umoci", "v0.6.0"
	module := filepath.Join(dir, "umoci-module")
	err = os.Mkdir(module, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(module, "go.mod"), []byte("module bench\n"), 0o644)
	}
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "umoci")
	for _, args := range [][]string{{"get", command + "@" + version}, {"build", "-o", path, command}} {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir, cmd.Env = module, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
		if err := run(cmd); err != nil {
			return "", err
		}
	}
	return path, nil
}

// Serve starts a registry in this process that has one image, that of the layout.
func Serve(ctx context.Context, dir, layout string) (reference string, err error) {
	objects, err := fs.New(dir, fs.Options{NoSync: true})
	if err != nil {
		return "", err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go func() {
		if err := server.Serve(ctx, listener, server.New(storage.New(objects, storage.Options{}), server.Options{}), server.ServeOptions{}); err != nil {
			fmt.Fprintln(os.Stderr, "registry:", err)
		}
	}()
	reference = listener.Addr().String() + "/bench/image:latest"
	return reference, run(exec.CommandContext(ctx, "skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false",
		"oci:"+layout+":latest", "docker://"+reference))
}

// Podman is Podman with a store of its own.
type Podman struct {
	path, store string
}

// NewPodman gives Podman a store in the directory store, which need not exist.
func NewPodman(store string) (Podman, error) {
	path, err := exec.LookPath("podman")
	return Podman{path, store}, err
}

// podmanConfig asks for no more open files than root may have without CAP_SYS_RESOURCE, and for no daemons.
const podmanConfig = `[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
helper_binaries_dir = [%q, "/usr/lib/podman"]
[network]
network_backend = "netavark"
`

// Command is one command of Podman's.
func (p Podman) Command(ctx context.Context, args ...string) (*exec.Cmd, error) {
	if err := os.MkdirAll(p.store, 0o700); err != nil {
		return nil, err
	}
	config := filepath.Join(p.store, "containers.conf")
	text := fmt.Sprintf(podmanConfig, filepath.Join(filepath.Dir(filepath.Dir(p.path)), "lib", "podman"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, p.path, append([]string{"--root", filepath.Join(p.store, "root"),
		"--runroot", filepath.Join(p.store, "run"), "--storage-driver", "overlay"}, args...)...)
	cmd.Env = append(os.Environ(), "CONTAINERS_CONF="+config)
	return cmd, nil
}

// Pull is the command that pulls a reference: into the store, and unpacked.
func (p Podman) Pull(ctx context.Context, reference string) (*exec.Cmd, error) {
	return p.Command(ctx, "pull", "--quiet", "--tls-verify=false", reference)
}

// Close undoes the mount that Podman leaves on its store.
func (p Podman) Close() error {
	err := unix.Unmount(filepath.Join(p.store, "root", "overlay"), unix.MNT_DETACH)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil // it was never used
	}
	return err
}

func run(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, out)
	}
	return nil
}
