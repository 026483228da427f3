package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/engine/bundle"
	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/safepath"
)

// A record is what others have to know of a container: what it needs, and how
// to get rid of it.
type record struct {
	Version int             `json:"version"`
	Image   string          `json:"image"`
	Chain   []digest.Digest `json:"chain"` // ChainIDs of its layers
	RunRoot string          `json:"runRoot"`
	Runtime string          `json:"runtime,omitempty"`
	Created time.Time       `json:"created"`
	Keep    bool            `json:"keep,omitempty"` // the container stays when it has ended
	Origin  origin          `json:"origin"`
	Process process         `json:"process"`
	Masked  []string        `json:"masked,omitempty"` // where something is mounted in it: no part of its files
	Exit    *Exit           `json:"exit,omitempty"`   // once it has ended
}

// process is what a container was asked to run otherwise than its image says. A
// commit makes it the new image's.
type process struct {
	Args       []string `json:"args,omitempty"`
	Entrypoint []string `json:"entrypoint,omitzero"`
	Env        []string `json:"env,omitempty"`
	Workdir    string   `json:"workdir,omitempty"`
	User       string   `json:"user,omitempty"`
}

const (
	recordVersion  = 1
	recordName     = "container.json"
	maxRecordBytes = 1 << 20
)

// A container is one that is about to run, or runs.
type container struct {
	*owned // its directory
	engine *Engine
	id     string
	bundle string // the directory of what a reboot may take away
	source *source
	lowers []snapshot
	record record
}

// What a container's directory has beside its record.
const (
	upperName = "upper" // what it changes, over its image
	workName  = "work"  // overlayfs's
	copyName  = "copy"  // all its files, where overlayfs cannot be had
)

func (c *container) file(name string) string { return c.bundle + "/" + name }

// newContainer makes the directory of a container, and the snapshots it needs
// if they are missing. From then on GC leaves these alone.
func (e *Engine) newContainer(ctx context.Context, o RunOptions) (c *container, err error) {
	src, err := e.source(ctx, o.Image, o.Pull.Platform, o.Pull, e.take(o.Pull))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, src.close())
		}
	}()
	chain := image.ChainIDs(src.image.Config.RootFS.DiffIDs)
	lowers, there, err := e.stack(chain)
	if err == nil && !there {
		if err = e.unpack(ctx, src.image, src.layers, func(digest.Digest) {}); err == nil {
			lowers, _, err = e.stack(chain)
		}
	}
	if err != nil {
		return nil, err
	}
	own, err := makeOwned(filepath.Join(e.containersDir(), o.ID), 0o700)
	if errors.Is(err, fs.ErrExist) {
		err = fmt.Errorf("container %q exists", o.ID)
	}
	if err != nil {
		return nil, err
	}
	c = &container{owned: own, engine: e, id: o.ID, bundle: e.options.bundle(o.ID), source: src, lowers: lowers, record: record{
		Version: recordVersion, Image: src.name, Chain: chain, RunRoot: e.options.RunRoot, Runtime: o.Runtime, Created: time.Now().UTC(),
		Process: process{o.Args, o.Entrypoint, o.Env, o.Workdir, o.User},
	}}
	if c.record.Origin, err = originOf(src.name, src.image); err == nil {
		err = c.writeRecord()
	}
	if err == nil {
		err = makeDir(filepath.Dir(c.bundle), 0o700)
	}
	if err == nil {
		err = os.Mkdir(c.bundle, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", c.id, errors.Join(err, c.removeAll()))
	}
	return c, nil
}

// writeRecord writes what others have to know of the container by now.
func (c *container) writeRecord() error {
	data, err := json.Marshal(c.record)
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(c.path, recordName), data)
}

func writeJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}

// checkID holds the names of containers to what is safe as a file name.
func checkID(id string) error {
	valid := id != "" && id[0] != '.' && len(id) <= 128
	for _, r := range id {
		valid = valid && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_+-.", r))
	}
	if !valid {
		return fmt.Errorf("container name %.200q: it may have letters, digits and _+-. and must not begin with a dot", id)
	}
	return nil
}

// configure writes config.json for the root file system that is now in rootfs.
func (c *container) configure(o RunOptions) error {
	b := bundle.Options{
		Args: o.Args, Entrypoint: o.Entrypoint, Env: o.Env, Workdir: o.Workdir, User: o.User, Hostname: o.Hostname,
		Terminal: o.Terminal, Volumes: o.Volumes, ReadOnly: o.ReadOnly, Network: o.Network,
		MemoryBytes: o.MemoryBytes, PidsLimit: o.PidsLimit, CPUs: o.CPUs,
		CapAdd: o.CapAdd, CapDrop: o.CapDrop, SecurityOpts: o.SecurityOpts,
		CgroupsPath: cgroupsPath(c.id),
	}
	var err error
	if b.MemorySwapBytes, err = o.memorySwapBytes(); err == nil {
		b.Hostname, err = hostname(c.id, o)
	}
	if err == nil {
		b.Mounts, err = c.hostFiles(b.Hostname, o.Network)
	}
	if err != nil {
		return fmt.Errorf("container %s: %w", c.id, err)
	}
	spec, err := specFor(c.source.image, c.file("rootfs"), b)
	if err == nil {
		err = writeJSON(c.file("config.json"), spec)
	}
	if err == nil {
		c.record.Masked, err = mountPoints(c.file("rootfs"), spec)
	}
	if err != nil {
		return err
	}
	c.record.Keep = o.Keep // from here on: what is only half made is of no use to anybody
	return c.writeRecord()
}

// mountPoints are the places of a root file system where something will be
// mounted, through the symbolic links that it has now.
func mountPoints(rootfs string, spec *specs.Spec) ([]string, error) {
	root, err := safepath.OpenRoot(rootfs)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	var points []string
	for _, m := range spec.Mounts {
		point, err := root.Resolve(m.Destination)
		if err != nil {
			return nil, err
		}
		if point != "." {
			points = append(points, point)
		}
	}
	return points, nil
}

// cgroupsPath is that of a container, below the hierarchies' roots.
func cgroupsPath(id string) string { return "/tare-" + id }

func hostname(id string, o RunOptions) (string, error) {
	switch {
	case o.Hostname != "":
		return o.Hostname, nil
	case o.Network == bundle.NetworkHost: // one name on one network
		return os.Hostname()
	}
	return id[:min(len(id), 12)], nil
}

// hostFiles makes the files of a container that depend on where it runs.
func (c *container) hostFiles(hostname, network string) ([]specs.Mount, error) {
	const self = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	hosts, resolv := []byte(self+"127.0.1.1\t"+hostname+"\n"), []byte{}
	if network == bundle.NetworkHost {
		for path, to := range map[string]*[]byte{"/etc/hosts": &hosts, "/etc/resolv.conf": &resolv} {
			data, err := os.ReadFile(path)
			if err == nil {
				*to = data
			} else if !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
	}
	var mounts []specs.Mount
	for _, f := range []struct {
		name string
		data []byte
	}{{"hostname", []byte(hostname + "\n")}, {"hosts", hosts}, {"resolv.conf", resolv}} {
		path := c.file(f.name)
		if err := os.WriteFile(path, f.data, 0o644); err != nil {
			return nil, err
		}
		if err := os.Chmod(path, 0o644); err != nil { // whatever our umask: the container's user reads it
			return nil, err
		}
		mounts = append(mounts, specs.Mount{Destination: "/etc/" + f.name, Type: "bind", Source: path, Options: []string{"rbind", "rprivate"}})
	}
	return mounts, nil
}

// close ends the use of the container, and removes all of it unless it has ended
// and is to be kept.
func (c *container) close() error {
	if c.record.Exit != nil && c.record.Keep {
		return errors.Join(c.source.close(), c.lay())
	}
	return errors.Join(c.source.close(), c.removeAll())
}

// lay leaves of a container that has ended its files and its record.
func (c *container) lay() error {
	defer c.release()
	return errors.Join(removeTree(c.bundle), removeTree(filepath.Join(c.path, workName)), c.writeRecord())
}

func (c *container) removeAll() error {
	return errors.Join(removeTree(c.bundle), c.remove())
}

// readRecord reads the record of a container.
func readRecord(dir string) (record, error) {
	var r record
	path := filepath.Join(dir, recordName)
	err := readJSONFile(path, &r)
	if err == nil && r.Version != recordVersion {
		err = fmt.Errorf("version %d, want %d", r.Version, recordVersion)
	}
	if err != nil {
		return r, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// sweep removes what killed processes have left, and buries kept containers
// that they ran. What can't be removed now is warned about and left to the next
// time.
func (e *Engine) sweep(ctx context.Context) (containers []string, snapshots int) {
	bury := func(o *owned) error {
		if atRest(o) {
			return nil
		}
		kept, err := e.burySwept(ctx, o)
		if !kept {
			containers = append(containers, filepath.Base(o.path))
		}
		return err
	}
	err := eachDead(ctx, e.containersDir(), "", bury)
	remove := func(o *owned) error {
		snapshots++
		return o.remove()
	}
	err = errors.Join(err, eachDead(ctx, e.newSnapshots(), "", remove))
	if err != nil && ctx.Err() == nil {
		e.options.Warn(err.Error())
	}
	return containers, snapshots
}

// atRest says that a container has ended in good order and is kept.
func atRest(o *owned) bool {
	r, err := readRecord(o.path)
	return err == nil && r.Keep && r.Exit != nil
}

// burySwept ends a container whose keeper was killed. If it was to be kept, what
// it has written is.
func (e *Engine) burySwept(ctx context.Context, o *owned) (kept bool, err error) {
	r, err := readRecord(o.path)
	if err != nil || !r.Keep {
		return false, e.bury(ctx, o, true)
	}
	if err := e.bury(ctx, o, false); err != nil {
		return true, err
	}
	r.Exit = &Exit{Status: statusKilled, Finished: time.Now().UTC()}
	c := container{owned: o, engine: e, bundle: Options{RunRoot: r.RunRoot}.bundle(filepath.Base(o.path)), record: r}
	return true, c.lay()
}

// bury ends a container whose keeper is gone, and removes what there is of it
// outside of its directory, and with all set that, too.
func (e *Engine) bury(ctx context.Context, o *owned, all bool) error {
	id := filepath.Base(o.path)
	if checkID(id) != nil {
		return o.remove() // none of ours
	}
	r, err := readRecord(o.path)
	if err != nil { // its keeper did not get far
		r = record{RunRoot: e.options.RunRoot}
	}
	keeper := Options{Root: e.options.Root, RunRoot: r.RunRoot}
	if r.Runtime != "" {
		if err := (external{keeper.RunRoot, r.Runtime}).delete(ctx, id); err != nil {
			return err
		}
	}
	if err := keeper.runtime().Delete(ctx, id, true); err != nil {
		return err
	}
	if err := removeTree(keeper.bundle(id)); err != nil || !all {
		return err
	}
	return o.remove()
}

// exists says whether a path is there, following links.
func exists(path string) bool { return unix.Access(path, unix.F_OK) == nil }
