package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/transfer"
	"github.com/tare-oci/tare/safepath"
)

// ArtifactFile is a file that becomes, or was, a blob of an artifact.
type ArtifactFile struct {
	Path      string
	MediaType string
}

// ArtifactOptions say what to make of files (image-spec manifest.md,
// "Guidelines for Artifact Usage").
type ArtifactOptions struct {
	// Type is the artifactType; it may be left out if there is a Config, whose
	// media type it then is.
	Type string
	// Files become the manifest's layers, in this order, each with its base name
	// as title.
	Files []ArtifactFile
	// Config, if set, is the manifest's config; otherwise that is empty.
	Config *ArtifactFile
	// Annotations are the manifest's.
	Annotations map[string]string
	// Subject, if set, is what the artifact is about: it becomes a referrer.
	Subject *v1.Descriptor
	// Progress may be nil.
	Progress transfer.Progress
}

// PushArtifact pushes files as an artifact: under ref's tag, or under its digest
// alone if ref has no tag.
func PushArtifact(ctx context.Context, registry PushRegistry, ref distribution.Reference, o ArtifactOptions) (v1.Descriptor, error) {
	desc, err := pushArtifact(ctx, registry, ref, o)
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("push artifact to %s: %w", ref, err)
	}
	return desc, nil
}

func pushArtifact(ctx context.Context, registry PushRegistry, ref distribution.Reference, o ArtifactOptions) (none v1.Descriptor, err error) {
	if o.Progress == nil {
		o.Progress = transfer.Silent{}
	}
	m := v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, ArtifactType: o.Type,
		Annotations: o.Annotations, Subject: o.Subject,
	}
	blobs := artifactBlobs{registry, ref.Repository, o.Progress}
	if o.Config != nil {
		m.Config, err = blobs.file(ctx, *o.Config)
	} else {
		m.Config, err = blobs.empty(ctx)
	}
	if err != nil {
		return none, err
	}
	for _, f := range o.Files {
		layer, err := blobs.file(ctx, f)
		if err != nil {
			return none, err
		}
		layer.Annotations = map[string]string{v1.AnnotationTitle: filepath.Base(f.Path)}
		m.Layers = append(m.Layers, layer)
	}
	if len(m.Layers) == 0 { // an artifact has a layer, if only the empty one
		empty, err := blobs.empty(ctx)
		if err != nil {
			return none, err
		}
		m.Layers = []v1.Descriptor{empty}
	}
	data, err := json.Marshal(m)
	if err != nil {
		return none, err
	}
	ref.Digest = digest.FromBytes(data)
	return registry.PushManifest(ctx, ref, m.MediaType, data)
}

// artifactBlobs are those of an artifact that is being pushed.
type artifactBlobs struct {
	registry PushRegistry
	repo     distribution.Repository
	progress transfer.Progress
}

func (b artifactBlobs) empty(ctx context.Context) (v1.Descriptor, error) {
	desc := v1.DescriptorEmptyJSON
	content := string(desc.Data)
	desc.Data = nil
	return desc, b.registry.PushBlob(ctx, b.repo, desc, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil })
}

func (b artifactBlobs) file(ctx context.Context, f ArtifactFile) (v1.Descriptor, error) {
	desc, err := describeFile(ctx, f)
	if err != nil {
		return v1.Descriptor{}, err
	}
	b.progress.Start(desc, 0)
	err = b.registry.PushBlob(ctx, b.repo, desc, func() (io.ReadCloser, error) {
		r, err := os.Open(f.Path)
		if err != nil {
			return nil, err
		}
		return &countedFile{r, desc.Digest, b.progress}, nil
	})
	if err == nil {
		b.progress.Done(desc.Digest)
	}
	return desc, err
}

// countedFile can seek, which an upload that goes on needs.
type countedFile struct {
	*os.File
	blob     digest.Digest
	progress transfer.Progress
}

func (f *countedFile) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	f.progress.Advance(f.blob, int64(n))
	return n, err
}

// describeFile reads a regular file to the end.
func describeFile(ctx context.Context, f ArtifactFile) (v1.Descriptor, error) {
	r, err := os.OpenFile(f.Path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe is refused, and not waited for
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer r.Close()
	if info, err := r.Stat(); err != nil {
		return v1.Descriptor{}, err
	} else if !info.Mode().IsRegular() {
		return v1.Descriptor{}, fmt.Errorf("%s: not a regular file; pack a directory first", f.Path)
	}
	sum := digest.Canonical.Digester()
	n, err := io.Copy(sum.Hash(), &contextReader{ctx, r})
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("read %s: %w", f.Path, err)
	}
	return v1.Descriptor{MediaType: f.MediaType, Digest: sum.Digest(), Size: n}, nil
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// PullArtifact writes the blobs of an artifact to a directory, each under its
// title, or under its digest if it has none, and returns the names. Nothing that
// is there is overwritten unless overwrite is set, and nothing is written outside
// the directory. A file appears whole and verified, or not at all.
func PullArtifact(ctx context.Context, src transfer.Source, dir string, overwrite bool, p transfer.Progress) ([]string, error) {
	names, err := pullArtifact(ctx, src, dir, overwrite, p)
	if err != nil {
		return nil, fmt.Errorf("pull artifact to %s: %w", dir, err)
	}
	return names, nil
}

func pullArtifact(ctx context.Context, src transfer.Source, dir string, overwrite bool, p transfer.Progress) ([]string, error) {
	desc := src.Root()
	data, err := src.Fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	m, err := image.DecodeManifest(desc, data)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	root, err := safepath.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	var names []string
	for i, layer := range m.Layers {
		if layer.MediaType == v1.MediaTypeEmptyJSON {
			continue
		}
		name, err := artifactName(layer)
		if err == nil {
			err = writeArtifact(ctx, src, root, name, layer, overwrite, p)
		}
		if err != nil {
			return nil, fmt.Errorf("layers[%d]: %w", i, err)
		}
		names = append(names, name)
	}
	return names, nil
}

func artifactName(layer v1.Descriptor) (string, error) {
	title := layer.Annotations[v1.AnnotationTitle]
	if title == "" {
		return layer.Digest.Algorithm().String() + "-" + layer.Digest.Encoded(), nil
	}
	name, err := safepath.Clean(title)
	if err == nil && name == "." || filepath.IsAbs(title) {
		err = errors.New("no name for a file")
	}
	if err != nil {
		return "", fmt.Errorf("title %q: %w", title, err)
	}
	return name, nil
}

// writeArtifact writes one file. Its content goes through a file without a
// name, so what is killed leaves nothing.
func writeArtifact(ctx context.Context, src transfer.Source, root *safepath.Root, name string, layer v1.Descriptor, overwrite bool, p transfer.Progress) error {
	parent, base := safepath.SplitBase(name)
	dir, err := root.MkdirAll(parent, 0o755)
	if err != nil {
		return err
	}
	defer dir.Close()
	fail := func(op string, err error) error { return fmt.Errorf("%s %s: %w", op, name, err) }
	fd, err := safepath.OpenAt(int(dir.Fd()), ".", unix.O_TMPFILE|unix.O_WRONLY, 0o666, safepath.Beneath)
	if err != nil {
		return fail("create", err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if err := copyBlob(ctx, src, f, layer, p); err != nil {
		return fail("write", err)
	}
	err = linkOpen(f, dir, base)
	if overwrite && errors.Is(err, unix.EEXIST) { // linkat(2) does not replace a file, rename(2) does
		temp := ".tare-" + randomID()[:16]
		if err = linkOpen(f, dir, temp); err == nil {
			if err = unix.Renameat(int(dir.Fd()), temp, int(dir.Fd()), base); err != nil {
				err = errors.Join(err, unix.Unlinkat(int(dir.Fd()), temp, 0))
			}
		}
	}
	switch {
	case errors.Is(err, unix.EEXIST):
		return fail("create", ErrFileExists)
	case err != nil:
		return fail("create", err)
	}
	return nil
}

// linkOpen gives an open file without a name one in a directory.
func linkOpen(f, dir *os.File, name string) error {
	return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), int(dir.Fd()), name, unix.AT_SYMLINK_FOLLOW)
}

func copyBlob(ctx context.Context, src transfer.Source, w io.Writer, desc v1.Descriptor, p transfer.Progress) error {
	p.Start(desc, 0)
	r, err := src.Blob(ctx, desc, 0)
	if err != nil {
		return err
	}
	defer r.Close()
	v, err := image.VerifyReader(transfer.Counted(r, desc.Digest, p), desc)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, v); err != nil {
		return err
	}
	p.Done(desc.Digest)
	return nil
}

// ReferrersRegistry is a registry that can say what refers to a manifest. A
// *remote.Client is one.
type ReferrersRegistry interface {
	Resolve(ctx context.Context, ref distribution.Reference) (v1.Descriptor, []byte, error)
	Referrers(ctx context.Context, repo distribution.Repository, d digest.Digest, artifactType string) ([]v1.Descriptor, error)
}

// Referrer is a manifest and those that refer to it.
type Referrer struct {
	v1.Descriptor
	Referrers []Referrer `json:"referrers,omitempty"`
}

// Bounds on a tree of referrers: a signature of an SBOM of an image is three deep.
const (
	maxReferrersDepth = 8
	maxReferrers      = 10_000
)

// Discover finds what refers to an image, and to that in turn. An artifact type,
// unless it is empty, narrows the first row.
func Discover(ctx context.Context, registry ReferrersRegistry, ref distribution.Reference, artifactType string) (Referrer, error) {
	desc, _, err := registry.Resolve(ctx, ref)
	if err != nil {
		return Referrer{}, err
	}
	seen := map[digest.Digest]bool{desc.Digest: true}
	var find func(d digest.Digest, artifactType string, depth int) ([]Referrer, error)
	find = func(d digest.Digest, artifactType string, depth int) (all []Referrer, err error) {
		if depth > maxReferrersDepth {
			return nil, nil
		}
		list, err := registry.Referrers(ctx, ref.Repository, d, artifactType)
		if err != nil {
			return nil, err
		}
		for _, desc := range list {
			if seen[desc.Digest] {
				continue
			}
			if seen[desc.Digest] = true; len(seen) > maxReferrers {
				return nil, fmt.Errorf("%s: more than %d referrers: %w", ref, maxReferrers, distribution.ErrTooLarge)
			}
			below, err := find(desc.Digest, "", depth+1)
			if err != nil {
				return nil, err
			}
			desc.Annotations = maps.Clone(desc.Annotations)
			all = append(all, Referrer{desc, below})
		}
		return all, nil
	}
	below, err := find(desc.Digest, artifactType, 1)
	return Referrer{desc, below}, err
}
