package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/engine/transport"
	"github.com/tare-oci/tare/image/layout"
	"github.com/tare-oci/tare/image/transfer"
)

// SyncItem is a repository on a registry and which of its tags are wanted: those
// that match a pattern of package path, or all of them if it is empty.
type SyncItem struct {
	distribution.Repository
	Tags string
}

func (s SyncItem) String() string {
	if s.Tags == "" {
		return s.Repository.String()
	}
	return s.Repository.String() + ":" + s.Tags
}

// ParseSyncItem reads what String writes: REPOSITORY or REPOSITORY:TAGS, with or
// without docker:// before it.
func ParseSyncItem(s string) (SyncItem, error) {
	s = strings.TrimPrefix(s, "docker://")
	name, tags := s, ""
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, '/') {
		if name, tags = s[:i], s[i+1:]; tags == "" {
			return SyncItem{}, fmt.Errorf("%q: nothing after the colon: %w", s, distribution.ErrInvalidReference)
		}
	}
	ref, err := distribution.ParseReference(name)
	if err == nil && ref.Digest != "" {
		err = fmt.Errorf("%q: want tags, not a digest: %w", s, distribution.ErrInvalidReference)
	}
	if err == nil {
		_, err = path.Match(tags, "x")
	}
	if err != nil {
		return SyncItem{}, fmt.Errorf("%q: %w", s, err)
	}
	return SyncItem{ref.Repository, tags}, nil
}

const maxSyncItems = 100_000

// ReadSyncList reads items, one on a line. What follows a # is a comment.
func ReadSyncList(r io.Reader) ([]SyncItem, error) {
	var items []SyncItem
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		item, err := ParseSyncItem(text)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if items = append(items, item); len(items) > maxSyncItems {
			return nil, fmt.Errorf("line %d: more than %d entries", n, maxSyncItems)
		}
	}
	return items, lines.Err()
}

// A SyncRegistry is one whose tags can be listed. A *remote.Client is one.
type SyncRegistry interface {
	Registry
	Tags(ctx context.Context, repo distribution.Repository) ([]string, error)
}

// SyncOptions say how to bring a place up to date.
type SyncOptions struct {
	transfer.Options
	From SyncRegistry
	To   PushRegistry // may be nil unless the destination is a registry
	// Scoped keeps the source's host in the names at the destination.
	Scoped bool
	// DryRun only reports.
	DryRun bool
	// Each is told of every image, when it is done with. It may be nil.
	Each func(SyncedImage)
}

// SyncedImage is what became of one image.
type SyncedImage struct {
	From, To string
	Digest   digest.Digest
	Copied   bool // it was not there; with DryRun, it would have been copied
	Err      error
}

// Sync brings the images that the items name from registries to a registry
// (docker://HOST[/PATH]), an image layout (oci:DIR), or directories in a
// directory (dir:DIR). What is there in the same version is not copied again.
// It goes on after an image that fails; the error says how many did.
func (e *Engine) Sync(ctx context.Context, items []SyncItem, to string, o SyncOptions) error {
	target, err := parseSyncTarget(to)
	if err != nil {
		return fmt.Errorf("sync to %s: %w", to, err)
	}
	failed, total := 0, 0
	report := func(s SyncedImage) {
		if total++; s.Err != nil {
			failed++
		}
		if o.Each != nil {
			o.Each(s)
		}
	}
	for _, item := range items {
		tags, err := item.tags(ctx, o.From)
		if err != nil {
			report(SyncedImage{From: item.String(), Err: err})
		}
		for _, tag := range tags {
			ref := distribution.Reference{Repository: item.Repository, Tag: tag}
			report(e.syncOne(ctx, ref, target, o))
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if failed > 0 {
		return fmt.Errorf("sync to %s: %d of %d failed", to, failed, total)
	}
	return nil
}

// tags lists the tags that are wanted. One that is written out is wanted even
// where the list of tags is not to be had.
func (s SyncItem) tags(ctx context.Context, registry SyncRegistry) ([]string, error) {
	if s.Tags != "" && distribution.ValidateTag(s.Tags) == nil {
		return []string{s.Tags}, nil
	}
	all, err := registry.Tags(ctx, s.Repository)
	if err != nil || s.Tags == "" {
		return all, err
	}
	var wanted []string
	for _, tag := range all {
		if ok, _ := path.Match(s.Tags, tag); ok { // the pattern has been checked
			wanted = append(wanted, tag)
		}
	}
	if len(wanted) == 0 {
		return nil, fmt.Errorf("%s: none of %d tags matches: %w", s, len(all), distribution.ErrNotFound)
	}
	return wanted, nil
}

func parseSyncTarget(to string) (transport.Location, error) {
	l, err := transport.Parse(to)
	if err != nil {
		return l, err
	}
	switch {
	case l.Kind == transport.Registry && strings.Contains(path.Base(l.Name), ":") && strings.Contains(l.Name, "/"):
		return l, errors.New("want a place for many images, without a tag")
	case l.Kind == transport.Layout && l.Name != "":
		return l, errors.New("want a place for many images, without a name")
	case l.Kind == transport.Registry, l.Kind == transport.Layout, l.Kind == transport.Dir:
		return l, nil
	}
	return l, errors.New("want docker://HOST[/PATH], oci:DIR or dir:DIR")
}

// syncName is where an image goes.
func syncName(target transport.Location, ref distribution.Reference, scoped bool) transport.Location {
	name := ref.Name
	if scoped {
		name = strings.ReplaceAll(ref.Host, ":", "-") + "/" + name
	}
	switch target.Kind {
	case transport.Registry:
		target.Name = strings.TrimSuffix(target.Name, "/") + "/" + name + ":" + ref.Tag
	case transport.Layout:
		target.Name = ref.String()
	default: // a colon would end the path
		target.Path = filepath.Join(target.Path, filepath.FromSlash(name), ref.Tag)
	}
	return target
}

func (e *Engine) syncOne(ctx context.Context, ref distribution.Reference, target transport.Location, o SyncOptions) (s SyncedImage) {
	place := syncName(target, ref, o.Scoped)
	s.From, s.To = ref.String(), place.String()
	src, err := openRegistrySource(ctx, o.From, ref, func() {})
	if err != nil {
		s.Err = err
		return s
	}
	defer src.Close()
	s.Digest = src.Root().Digest
	// What a copy without its index leaves has another digest: it is looked at
	// blob by blob, which copies nothing that is there either.
	if there, err := e.digestAt(ctx, s.To, o.To); err != nil {
		s.Err = err
		return s
	} else if there == s.Digest {
		return s
	}
	if s.Copied = true; o.DryRun {
		return s
	}
	if place.Kind == transport.Dir {
		if s.Err = os.MkdirAll(filepath.Dir(place.Path), 0o755); s.Err != nil {
			return s
		}
	}
	r, err := e.copyFrom(ctx, src, s.To, CopyOptions{Options: o.Options, To: o.To})
	if s.Err = err; err == nil {
		s.Digest = r.Root.Digest
	}
	return s
}

// digestAt is the digest of what has this name now, "" where there is nothing.
func (e *Engine) digestAt(ctx context.Context, name string, registry PushRegistry) (digest.Digest, error) {
	src, err := e.OpenSource(ctx, name, registry)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, distribution.ErrNotFound):
		return "", nil
	case errors.Is(err, layout.ErrNoLayout): // yet: whoever makes it one tells what else it is
		return "", nil
	case err != nil:
		return "", err
	}
	return src.Root().Digest, src.Close()
}
