package engine

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/runtime/plan"
)

// RunOptions say what to run, and how. What is left out is as the image says,
// or else as docker has it.
type RunOptions struct {
	// Image is a name in the store, a registry reference (pulled when it is
	// missing), or oci:LAYOUT:TAG.
	Image string
	// Pull says how.
	Pull PullOptions
	// ID names the container: letters, digits and _+-. ; 64 random digits if empty.
	ID string

	// Args take the place of the image's Cmd.
	Args []string
	// Entrypoint takes the place of the image's, which makes its Cmd void too;
	// empty and not nil is none.
	Entrypoint []string
	// Env has NAME=VALUE, or NAME alone to take a variable away.
	Env []string
	// Workdir and User take the place of the image's.
	Workdir, User string
	// Hostname is by default the beginning of ID.
	Hostname string
	// Volumes are SRC:DST[:OPTION,OPTION…], with absolute paths.
	Volumes []string
	// ReadOnly makes the root file system read-only.
	ReadOnly bool
	// Network is "none", the default, with nothing but a loopback device, or
	// "host".
	Network string

	MemoryBytes int64   // 0 is no limit
	CPUs        float64 // 0 is no limit; 1.5 is one and a half processors' time
	PidsLimit   int64   // 0 is no limit

	// CapAdd and CapDrop have names with or without CAP_, or ALL.
	CapAdd, CapDrop []string
	// SecurityOpts have no-new-privileges, seccomp=unconfined or seccomp=FILE.
	SecurityOpts []string

	// Terminal gives the container a terminal.
	Terminal bool
	// Interactive lets it read Stdio[0], which is /dev/null otherwise.
	Interactive bool
	Stdio       [3]*os.File
	// Runtime is a program with runc's command line (runc or crun), by path or
	// by name; empty is our own, in process.
	Runtime string
}

// Run runs an image in a new container, in the foreground, and removes the
// container when it has ended. It returns the exit status of the container's
// process, which is meaningless with an error; ExitStatus(err) is one for that.
//
// Signals are the container's once it runs; before, SIGINT, SIGTERM, SIGHUP and
// SIGQUIT end the preparation. So ctx must not be tied to signals. When ctx ends
// while the container runs, the container is killed.
func (e *Engine) Run(ctx context.Context, o RunOptions) (status int, err error) {
	return 0, errors.New("run: not yet")
}

// UnpackOptions say how to unpack.
type UnpackOptions struct {
	// Platform to choose from an index; nil is this machine's.
	Platform *v1.Platform
	// Pull says how an image is pulled that is missing.
	Pull PullOptions
	// RootfsOnly makes the directory the root file system itself, without the
	// bundle around it.
	RootfsOnly bool
}

// Unpack writes an image to a new, or empty, directory as a bundle: its
// config.json, and its files in rootfs. The image is a name in the store, a
// registry reference (pulled when it is missing), or oci:LAYOUT:TAG. The
// directory appears whole or not at all.
func (e *Engine) Unpack(ctx context.Context, image, dir string, o UnpackOptions) error {
	return errors.New("unpack: not yet")
}

// Explain compiles what would be run, without running it: for a bundle (a
// directory with a config.json), or for an image, with the options of Run.
func (e *Engine) Explain(ctx context.Context, target string, o RunOptions) (*plan.Plan, error) {
	return nil, errors.New("explain: not yet")
}

// GCOptions say what GC does.
type GCOptions struct {
	// DryRun only reports.
	DryRun bool
	// PartialAge keeps the beginnings of blobs that were written to more
	// recently, for a pull to go on with.
	PartialAge time.Duration
}

// GCReport says what GC removed, or would have.
type GCReport struct {
	Containers   []string        // leftovers of killed processes
	Snapshots    []digest.Digest // ChainIDs of unpacked layers
	Blobs        []digest.Digest
	Partials     int   // beginnings of blobs and unpacked layers
	RemovedBytes int64 // of blobs; what snapshots take is not counted
}

// GC removes what no image and no container needs: blobs, unpacked layers, and
// what killed processes have left.
func (e *Engine) GC(ctx context.Context, o GCOptions) (GCReport, error) {
	return GCReport{}, errors.New("gc: not yet")
}
