package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/engine/transport"
	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/changeset"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/image/transfer"
	"github.com/tare-oci/tare/safepath"
)

// The two files that Unpack puts beside config.json, so that the bundle can become an image again.
const (
	originName = "tare.json"   // where it came from
	recordFile = "tare.record" // what rootfs looked like (package changeset)
)

// origin is the image that a tree was unpacked from, and how.
type origin struct {
	Version  int           `json:"version"`
	Image    string        `json:"image"`    // as package transport names it, with absolute paths
	Manifest v1.Descriptor `json:"manifest"` // of the image itself, whatever the name stands for by now
	Rootless bool          `json:"rootless,omitempty"`
	UIDMap   layer.IDMap   `json:"uidMap,omitempty"`
	GIDMap   layer.IDMap   `json:"gidMap,omitempty"`
}

const originVersion = 1

// originOf describes an image that was found under a name.
func originOf(name string, img *image.Image) (origin, error) {
	l, err := transport.Parse(name)
	if err == nil && l.Path != "" {
		l.Path, err = filepath.Abs(l.Path)
	}
	return origin{Version: originVersion, Image: l.String(), Manifest: img.Descriptor}, err
}

// changesetOptions are those that the way of unpacking asks for.
func (o origin) changesetOptions() changeset.Options {
	c := changeset.Options{Rootless: o.Rootless}
	if len(o.UIDMap) > 0 || len(o.GIDMap) > 0 {
		c.MapID = func(uid, gid uint32) (uint32, uint32, error) {
			uid, err := o.UIDMap.ToContainer(uid)
			if err != nil {
				return 0, 0, fmt.Errorf("user: %w", err)
			}
			if gid, err = o.GIDMap.ToContainer(gid); err != nil {
				return 0, 0, fmt.Errorf("group: %w", err)
			}
			return uid, gid, nil
		}
	}
	return c
}

// open opens the image where it was. Its name may be gone or stand for another by now: the digest counts.
func (e *Engine) openOrigin(ctx context.Context, o origin) (transfer.Source, *image.Image, error) {
	src, err := e.originSource(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	img, err := image.Load(ctx, src, o.Manifest)
	if err != nil {
		err = fmt.Errorf("image %s, which this was made from: %w", o.Image, err)
		return nil, nil, errors.Join(err, src.Close())
	}
	return src, img, nil
}

func (e *Engine) originSource(ctx context.Context, o origin) (transfer.Source, error) {
	l, err := transport.Parse(o.Image)
	if err != nil {
		return nil, err
	}
	if l.Kind != transport.Plain {
		return e.OpenSource(ctx, o.Image, nil)
	}
	session, err := e.images.Begin(ctx)
	if err != nil {
		return nil, err
	}
	return e.images.Source(o.Manifest, session), nil
}

// writeOrigin puts the two files beside a root file system that was just unpacked, or repacked. The record comes last: who is
// killed in between has a bundle whose changes are in its image and are found once more. The other way around they would be lost.
func writeOrigin(ctx context.Context, dir, rootfs string, o origin) error {
	data, err := json.MarshalIndent(o, "", "\t")
	if err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(dir, originName), append(data, '\n')); err != nil {
		return err
	}
	return writeRecord(ctx, rootfs, filepath.Join(dir, recordFile))
}

// writeRecord writes what a tree looks like now.
func writeRecord(ctx context.Context, rootfs, path string) (err error) {
	root, err := safepath.OpenRoot(rootfs)
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = changeset.Scan(ctx, root, f)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// replaceFile gives a file new content at one stroke.
func replaceFile(path string, data []byte) error {
	err := os.WriteFile(path+".new", data, 0o600)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return errors.Join(err, ignoreMissing(os.Remove(path+".new")))
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// ErrNoOrigin says that a directory is no bundle that Unpack has made.
var ErrNoOrigin = errors.New("not a bundle that tare unpack has made")

// readOrigin reads where a bundle came from.
func readOrigin(bundle string) (origin, error) {
	var o origin
	err := readJSONFile(filepath.Join(bundle, originName), &o)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return o, fmt.Errorf("%s: %w: it has no %s", bundle, ErrNoOrigin, originName)
	case err == nil && o.Version != originVersion:
		err = fmt.Errorf("version %d, want %d", o.Version, originVersion)
	case err == nil:
		err = image.CheckDescriptor(o.Manifest)
	}
	if err != nil {
		return o, fmt.Errorf("%s: %w", filepath.Join(bundle, originName), err)
	}
	return o, nil
}

// readJSONFile reads a small file of ours.
func readJSONFile(path string, v any) error {
	st, err := os.Lstat(path)
	if err == nil && (!st.Mode().IsRegular() || st.Size() > maxRecordBytes) {
		err = fmt.Errorf("not a regular file of at most %d bytes", maxRecordBytes)
	}
	if err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}
