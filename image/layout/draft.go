package layout

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path"
	"syscall"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
)

// Draft is a blob on its way into the store whose digest is not known before it is written: a layer that is being packed.
// It is not for concurrent use.
type Draft struct {
	store   *Store
	file    *os.File // locked; nil when there is no more to write
	partial string
	hash    hash.Hash
	size    int64
	failed  error
}

// Draft begins such a blob. Until Commit it has a random name among the partial blobs, where GC finds it if we are killed.
func (p *Session) Draft(ctx context.Context) (*Draft, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var b [32]byte
	_, _ = rand.Read(b[:]) // it never fails
	d := &Draft{store: p.Store, partial: partialPath(digest.NewDigestFromEncoded(digest.Canonical, hex.EncodeToString(b[:]))), hash: digest.Canonical.Hash()}
	f, err := p.openPrivate(d.partial, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err == nil {
		if err = flock(ctx, f, syscall.LOCK_EX); err != nil {
			err = errors.Join(err, f.Close(), p.remove(d.partial))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("new blob in %s: %w", p.dir, plain(err))
	}
	d.file = f
	return d, nil
}

// Write appends to the blob.
func (d *Draft) Write(p []byte) (int, error) {
	if d.file == nil {
		return 0, d.wrap("write", fs.ErrClosed)
	}
	n, err := d.file.Write(p)
	d.hash.Write(p[:n])
	d.size += int64(n)
	if err != nil {
		d.failed = err
		return n, d.wrap("write", err)
	}
	return n, nil
}

func (d *Draft) wrap(op string, err error) error {
	return fmt.Errorf("%s new blob in %s: %w", op, d.store.dir, plain(err))
}

// Commit puts the blob in its place and says what it is. One that is there already stays.
func (d *Draft) Commit(ctx context.Context, mediaType string) (v1.Descriptor, error) {
	desc := v1.Descriptor{MediaType: mediaType, Digest: digest.NewDigest(digest.Canonical, d.hash), Size: d.size}
	err := d.commit(ctx, desc)
	if err != nil {
		return v1.Descriptor{}, errors.Join(d.wrap("commit", err), d.Close())
	}
	return desc, nil
}

func (d *Draft) commit(ctx context.Context, desc v1.Descriptor) error {
	switch {
	case d.file == nil:
		return fs.ErrClosed
	case d.failed != nil:
		return fmt.Errorf("an earlier write failed: %w", d.failed)
	}
	if err := image.CheckDescriptor(desc); err != nil {
		return err
	}
	if there, err := d.store.present(ctx, desc); err != nil {
		return err
	} else if there {
		return d.Close()
	}
	dest, err := blobPath(desc.Digest)
	if err == nil {
		err = d.store.sync(d.file)
	}
	if err == nil {
		err = d.store.makeBlobDir(path.Dir(dest))
	}
	if err == nil {
		err = d.store.root.Rename(d.partial, dest)
	}
	if err != nil {
		return err
	}
	err = d.file.Close()
	d.file = nil
	return errors.Join(err, d.store.syncDir(path.Dir(dest)))
}

// Close ends the writing. Without a Commit before it the blob is gone.
func (d *Draft) Close() error {
	if d.file == nil {
		return nil
	}
	err := errors.Join(d.store.remove(d.partial), d.file.Close())
	d.file = nil
	return err
}
