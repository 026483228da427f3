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
}

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
	c = &container{owned: own, engine: e, id: o.ID, bundle: e.options.bundle(o.ID), source: src, lowers: lowers}
	r := record{Version: recordVersion, Image: src.name, Chain: chain, RunRoot: e.options.RunRoot, Runtime: o.Runtime, Created: time.Now().UTC()}
	if err = writeJSON(filepath.Join(c.path, recordName), r); err == nil {
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
	return err
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

// close ends the use of the container and removes all of it.
func (c *container) close() error {
	return errors.Join(c.source.close(), c.removeAll())
}

func (c *container) removeAll() error {
	return errors.Join(removeTree(c.bundle), c.remove())
}

// readRecord reads the record of a container.
func readRecord(dir string) (record, error) {
	var r record
	path := filepath.Join(dir, recordName)
	st, err := os.Lstat(path)
	if err == nil && st.Size() > maxRecordBytes {
		err = fmt.Errorf("larger than %d bytes", maxRecordBytes)
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(path)
	}
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err == nil && r.Version != recordVersion {
		err = fmt.Errorf("version %d, want %d", r.Version, recordVersion)
	}
	if err != nil {
		return r, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// sweep removes what killed processes have left. What can't be removed now is
// warned about and left to the next time.
func (e *Engine) sweep(ctx context.Context) (containers []string, snapshots int) {
	bury := func(o *owned) error {
		containers = append(containers, filepath.Base(o.path))
		return e.bury(ctx, o)
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

// bury ends a container whose keeper was killed, and removes it.
func (e *Engine) bury(ctx context.Context, o *owned) error {
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
	if err := removeTree(keeper.bundle(id)); err != nil {
		return err
	}
	return o.remove()
}

// exists says whether a path is there, following links.
func exists(path string) bool { return unix.Access(path, unix.F_OK) == nil }
