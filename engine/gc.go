package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layout"
)

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
	Partials     int   // beginnings of blobs, and of unpacked layers
	RemovedBytes int64 // of blobs; what unpacked layers take is not counted
}

// GC removes what no image and no container needs: blobs, unpacked layers, and
// what killed processes have left. It waits until nobody pulls, unpacks or
// prepares a container.
func (e *Engine) GC(ctx context.Context, o GCOptions) (GCReport, error) {
	report, err := e.gc(ctx, o)
	if err != nil {
		return report, fmt.Errorf("gc: %w", err)
	}
	return report, nil
}

func (e *Engine) gc(ctx context.Context, o GCOptions) (report GCReport, err error) {
	how := unix.LOCK_EX
	if o.DryRun {
		how = unix.LOCK_SH
	}
	release, err := e.lease(ctx, how)
	if err != nil {
		return report, err
	}
	defer release()
	if o.DryRun {
		report.Containers, report.Partials, err = e.leftovers(ctx)
	} else {
		report.Containers, report.Partials = e.sweep(ctx)
	}
	if err != nil {
		return report, err
	}
	needed, err := e.neededSnapshots(ctx, report.Containers)
	if err != nil {
		return report, err
	}
	if report.Snapshots, err = e.gcSnapshots(ctx, needed, o.DryRun); err != nil {
		return report, err
	}
	kept, err := e.keptImages()
	if err != nil {
		return report, err
	}
	blobs, err := e.images.GC(ctx, layout.GCOptions{Roots: kept, DryRun: o.DryRun, PartialAge: o.PartialAge})
	report.Blobs, report.RemovedBytes = blobs.Removed, blobs.RemovedBytes
	report.Partials += blobs.Partials
	return report, err
}

// leftovers is sweep that leaves them.
func (e *Engine) leftovers(ctx context.Context) (containers []string, snapshots int, err error) {
	err = eachDead(ctx, e.containersDir(), "", func(o *owned) error {
		if r, err := readRecord(o.path); err != nil || !r.Keep {
			containers = append(containers, filepath.Base(o.path))
		}
		return nil
	})
	if err == nil {
		err = eachDead(ctx, e.newSnapshots(), "", func(*owned) error {
			snapshots++
			return nil
		})
	}
	return containers, snapshots, err
}

// neededSnapshots are those of the images that have names, for every platform
// that is here, and those of containers that are not dead.
func (e *Engine) neededSnapshots(ctx context.Context, dead []string) (map[digest.Digest]bool, error) {
	needed := map[digest.Digest]bool{}
	need := func(chain []digest.Digest) {
		for _, id := range chain {
			needed[id] = true
		}
	}
	names, err := e.images.List(ctx)
	if err != nil {
		return nil, err
	}
	seen := map[digest.Digest]bool{}
	for _, n := range names {
		if err := e.eachImage(ctx, n.Desc, seen, func(img *image.Image) { need(image.ChainIDs(img.Config.RootFS.DiffIDs)) }); err != nil {
			return nil, fmt.Errorf("image %s: %w", n.Name, err)
		}
	}
	entries, err := os.ReadDir(e.containersDir())
	if err != nil {
		return nil, err
	}
	isDead := map[string]bool{}
	for _, id := range dead {
		isDead[id] = true
	}
	for _, entry := range entries {
		if isDead[entry.Name()] || !entry.IsDir() {
			continue
		}
		r, err := readRecord(filepath.Join(e.containersDir(), entry.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has ended just now: none is being made
		}
		if err != nil {
			return nil, err
		}
		need(r.Chain)
	}
	return needed, nil
}

// eachImage visits the images that a descriptor leads to, as far as they are
// here. Seen are those that need no second visit.
func (e *Engine) eachImage(ctx context.Context, desc v1.Descriptor, seen map[digest.Digest]bool, visit func(*image.Image)) error {
	if seen[desc.Digest] {
		return nil
	}
	seen[desc.Digest] = true
	switch image.KindOf(desc) {
	case image.KindManifest:
		documents := &failing{Fetcher: e.images}
		img, err := image.Load(ctx, documents, desc)
		switch {
		case err == nil:
			visit(img)
		case documents.err != nil && !errors.Is(documents.err, fs.ErrNotExist):
			return err
		}
		// What is here whole but fit for nothing, such as a manifest with fewer
		// DiffIDs than layers, has never been unpacked.
	case image.KindIndex:
		data, err := e.images.Fetch(ctx, desc)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		refs, err := image.References(desc, data)
		if err != nil {
			return err
		}
		for _, r := range refs {
			if err := e.eachImage(ctx, r.Desc, seen, visit); err != nil {
				return err
			}
		}
	}
	return nil
}

// failing remembers that a document could not be read, to tell that from one
// that says what it may not.
type failing struct {
	image.Fetcher
	err error
}

func (f *failing) Fetch(ctx context.Context, desc v1.Descriptor) ([]byte, error) {
	data, err := f.Fetcher.Fetch(ctx, desc)
	if err != nil {
		f.err = err
	}
	return data, err
}

// gcSnapshots removes the unpacked layers that are not needed. Each first loses
// its name: what a killed GC leaves is no layer with a part of its files.
func (e *Engine) gcSnapshots(ctx context.Context, needed map[digest.Digest]bool, dryRun bool) (removed []digest.Digest, err error) {
	if err := makeDir(e.newSnapshots(), 0o700); err != nil {
		return nil, err
	}
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		dir := filepath.Join(e.snapshotsDir(), string(algorithm))
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return removed, err
		}
		for _, entry := range entries {
			id := digest.NewDigestFromEncoded(algorithm, entry.Name())
			if image.CheckDigest(id) != nil || needed[id] {
				continue
			}
			if err := ctx.Err(); err != nil {
				return removed, err
			}
			if !dryRun {
				doomed := filepath.Join(e.newSnapshots(), randomID()[:16])
				if err := os.Rename(filepath.Join(dir, entry.Name()), doomed); err != nil {
					return removed, err
				}
				if err := removeTree(doomed); err != nil {
					return removed, err
				}
			}
			removed = append(removed, id)
		}
	}
	return removed, nil
}
