package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layout"
)

// An Image is one that the store has.
type Image struct {
	// Name is what the store knows it by, such as docker.io/library/debian:12;
	// empty for one that was found by its digest and has no name.
	Name string
	// Target is what the name stands for: an index or a manifest.
	Target v1.Descriptor
	// Image is the manifest for the platform asked for, and its config; nil in
	// the result of Images where the store has no image of this machine's
	// platform under the name.
	*image.Image
	// SizeBytes is that of the manifest, the config and the layers, compressed.
	SizeBytes int64
}

// FamiliarName is the name as people write it: debian:12.
func (i Image) FamiliarName() string { return Familiar(i.Name) }

// Familiar writes a name of the store as people do.
func Familiar(name string) string {
	ref, err := distribution.ParseReference(name)
	if err != nil {
		return name
	}
	return ref.Familiar()
}

// ImageOf puts together what is known of an image: img, which was selected from
// target, may be nil.
func ImageOf(name string, target v1.Descriptor, img *image.Image) Image {
	i := Image{Name: name, Target: target, Image: img}
	if img != nil {
		i.SizeBytes = img.Descriptor.Size + img.Manifest.Config.Size
		for _, l := range img.Manifest.Layers {
			i.SizeBytes += l.Size
		}
	}
	return i
}

// Images lists the images that have names, in the order of the store's index.
// One that cannot be read is there without manifest and config, and Warn is
// told why.
func (e *Engine) Images(ctx context.Context) ([]Image, error) {
	names, err := e.images.List(ctx)
	if err != nil {
		return nil, err
	}
	named := map[digest.Digest]bool{}
	for _, n := range names {
		named[n.Desc.Digest] = named[n.Desc.Digest] || n.Name != ""
	}
	all := make([]Image, 0, len(names))
	for _, n := range names {
		if n.Name == "" && named[n.Desc.Digest] {
			continue // a name has come since
		}
		img, err := image.Select(ctx, e.images, n.Desc, image.HostPlatform())
		var other *image.NoPlatformError
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.As(err, &other), errors.Is(err, image.ErrArtifact), errors.Is(err, fs.ErrNotExist):
		case err != nil:
			e.options.Warn(fmt.Sprintf("image %s: %v", n.Name, err))
		}
		all = append(all, ImageOf(n.Name, n.Desc, img))
	}
	return all, nil
}

// Resolve finds an image of the store for a platform (nil is this machine's).
// It may be named as the store names it, as people name it ("debian", which is
// docker.io/library/debian:latest), or by the beginning of a digest: that of
// what the name stands for, of the manifest, or of the config, which is
// docker's image ID. The error is ErrNoImage if there is none of that name, or
// none for the platform.
func (e *Engine) Resolve(ctx context.Context, name string, platform *v1.Platform) (Image, error) {
	found, err := e.find(ctx, name)
	if err != nil {
		return Image{}, err
	}
	img, err := image.Select(ctx, e.images, found.Desc, platformOr(platform))
	if errors.Is(err, fs.ErrNotExist) { // the index is here, and the part for this platform is not
		err = &classified{fmt.Errorf("image %s: not here for platform %s: %w", name, image.PlatformString(platformOr(platform)), err), ErrNoImage}
	}
	if err != nil {
		return Image{}, err
	}
	return ImageOf(found.Name, found.Desc, img), nil
}

func platformOr(p *v1.Platform) v1.Platform {
	if p == nil {
		return image.HostPlatform()
	}
	return *p
}

// Find looks up what the store knows an image, or any other artifact, by, and
// what the name stands for. The error is ErrNoImage if there is none.
func (e *Engine) Find(ctx context.Context, name string) (layout.Name, error) {
	return e.find(ctx, name)
}

// find looks a name up, or a digest.
func (e *Engine) find(ctx context.Context, name string) (layout.Name, error) {
	found, err := e.findName(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return e.findDigest(ctx, name)
	}
	return found, err
}

// findName looks a name up. An error with fs.ErrNotExist means that there is none.
func (e *Engine) findName(ctx context.Context, name string) (layout.Name, error) {
	spellings := []string{name}
	if refs, err := e.candidates(name); err == nil {
		for _, ref := range refs {
			spellings = append(spellings, ref.String())
		}
	}
	for _, s := range spellings {
		if s == "" {
			continue
		}
		desc, err := e.images.Resolve(ctx, s)
		if err == nil {
			return layout.Name{Name: s, Desc: desc}, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return layout.Name{}, err
		}
	}
	return layout.Name{}, fmt.Errorf("name %q: %w", name, fs.ErrNotExist)
}

// findDigest looks for the one image with a digest that begins so.
func (e *Engine) findDigest(ctx context.Context, name string) (layout.Name, error) {
	found, err := e.findByDigest(ctx, name)
	if err != nil {
		return layout.Name{}, err
	}
	return found[0], nil
}

// findByDigest returns all names of the one image with a digest that begins so;
// last, where there is one, the entry without a name.
func (e *Engine) findByDigest(ctx context.Context, name string) (found []layout.Name, err error) {
	none := fmt.Errorf("image %q: %w", name, ErrNoImage)
	prefix := strings.TrimPrefix(name, "sha256:")
	if prefix == "" || strings.Trim(prefix, "0123456789abcdef") != "" {
		return nil, none
	}
	names, err := e.images.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if !e.anyDigest(ctx, n.Desc, "sha256:"+prefix) {
			continue
		}
		if len(found) > 0 && found[0].Desc.Digest != n.Desc.Digest {
			return nil, fmt.Errorf("image %q: ambiguous: %s and %s", name, Familiar(found[0].Name), Familiar(n.Name))
		}
		found = append(found, n)
	}
	if len(found) == 0 {
		return nil, none
	}
	slices.SortStableFunc(found, func(a, b layout.Name) int { return min(len(b.Name), 1) - min(len(a.Name), 1) })
	return found, nil
}

// anyDigest says whether a digest of the image begins so.
func (e *Engine) anyDigest(ctx context.Context, desc v1.Descriptor, prefix string) bool {
	begins := func(d digest.Digest) bool { return strings.HasPrefix(d.String(), prefix) }
	if begins(desc.Digest) {
		return true
	}
	img, err := image.Select(ctx, e.images, desc, image.HostPlatform())
	return err == nil && (begins(img.Descriptor.Digest) || begins(img.Manifest.Config.Digest))
}

// Tag gives an image of the store, or any other artifact, further names, which
// are taken from others that have them.
func (e *Engine) Tag(ctx context.Context, name string, to ...string) error {
	session, err := e.images.Begin(ctx)
	if err != nil {
		return err
	}
	defer session.Close()
	found, err := e.find(ctx, name)
	if err != nil {
		return err
	}
	var refs []distribution.Reference
	for _, name := range to { // all of them, or none
		ref, err := distribution.ParseReference(name)
		if err != nil {
			return err
		}
		if ref.Digest != "" {
			return fmt.Errorf("tag %s: a name with a digest cannot be given: %w", name, distribution.ErrInvalidReference)
		}
		refs = append(refs, ref.WithDefaultTag())
	}
	for _, ref := range refs {
		if err := session.Tag(ctx, ref.String(), found.Desc); err != nil {
			return err
		}
	}
	return nil
}

// Remove takes a name away, or the image that has none and is found by its
// digest; GC removes what then nothing leads to. It returns the name that the
// image had, or its digest. Where a digest has several names the error is
// ErrSeveralNames.
func (e *Engine) Remove(ctx context.Context, name string) (removed string, err error) {
	found, err := e.findToRemove(ctx, name)
	if err != nil {
		return "", err
	}
	if len(found) > 1 && found[1].Name != "" {
		var names []string
		for _, n := range found {
			if n.Name != "" {
				names = append(names, Familiar(n.Name))
			}
		}
		return "", fmt.Errorf("image %q: %w: %s", name, ErrSeveralNames, strings.Join(names, ", "))
	}
	return e.removeEntry(ctx, found[0])
}

// RemoveAll is Remove that takes all names away of an image that is named by its
// digest.
func (e *Engine) RemoveAll(ctx context.Context, name string) (removed []string, err error) {
	found, err := e.findToRemove(ctx, name)
	if err != nil {
		return nil, err
	}
	for _, n := range found {
		was, err := e.removeEntry(ctx, n)
		if err != nil {
			return removed, err
		}
		removed = append(removed, was)
	}
	return removed, nil
}

// findToRemove finds a name, or all names of a digest.
func (e *Engine) findToRemove(ctx context.Context, name string) ([]layout.Name, error) {
	found, err := e.findName(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return e.findByDigest(ctx, name)
	}
	return []layout.Name{found}, err
}

func (e *Engine) removeEntry(ctx context.Context, n layout.Name) (removed string, err error) {
	if n.Name == "" {
		return n.Desc.Digest.String(), e.images.RemoveUnnamed(ctx, n.Desc.Digest)
	}
	return n.Name, e.images.Untag(ctx, n.Name)
}
