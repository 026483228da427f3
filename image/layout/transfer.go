package layout

import (
	"context"
	"errors"
	"io"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Source is something in a store, to be copied from there: a transfer.Source.
type Source struct {
	*Store
	root  v1.Descriptor
	close func() error
}

// Source opens what desc describes, which the store has. Closing it closes
// what is given, if anything.
func (s *Store) Source(desc v1.Descriptor, closers ...io.Closer) *Source {
	return &Source{s, desc, func() error { return closeAll(closers) }}
}

func closeAll(closers []io.Closer) error {
	var errs []error
	for _, c := range closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// Root is what the source was opened for.
func (s *Source) Root() v1.Descriptor { return s.root }

// Blob opens a blob from offset on.
func (s *Source) Blob(ctx context.Context, desc v1.Descriptor, offset int64) (io.ReadCloser, error) {
	b, err := s.Open(ctx, desc)
	if err != nil {
		return nil, err
	}
	if _, err := b.Seek(offset, io.SeekStart); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// Close closes what the source was opened with.
func (s *Source) Close() error { return s.close() }

// Destination is a name in a store, to copy something to: a
// transfer.Destination.
type Destination struct {
	session *Session
	name    string
	close   func() error
}

// Destination prepares to give a name to something that is to come, or no name
// if it is empty. Closing it closes what is given, if anything; the session
// has to live as long.
func (p *Session) Destination(name string, closers ...io.Closer) (*Destination, error) {
	if name != "" {
		if err := CheckName(name); err != nil {
			return nil, err
		}
	}
	return &Destination{p, name, func() error { return closeAll(closers) }}, nil
}

// HasBlob says whether the store has a blob.
func (d *Destination) HasBlob(ctx context.Context, desc v1.Descriptor) (bool, error) {
	return d.session.Has(ctx, desc)
}

// PutBlob stores a blob. What an earlier attempt has left of it is gone on with;
// if that turns out to be wrong, the blob is read again from its beginning.
func (d *Destination) PutBlob(ctx context.Context, desc v1.Descriptor, open func(offset int64) (io.ReadCloser, error)) error {
	in, err := d.session.Ingest(ctx, desc)
	if err != nil {
		return err
	}
	defer in.Close()
	if in.Offset() < desc.Size {
		r, err := open(in.Offset())
		if err != nil {
			return err
		}
		defer r.Close()
		if _, err := copyContext(ctx, in, r); err != nil {
			return err
		}
	}
	return in.Commit()
}

// PutManifest stores a manifest or an index.
func (d *Destination) PutManifest(ctx context.Context, desc v1.Descriptor, data []byte) error {
	return d.session.PutAs(ctx, desc, data)
}

// PutRoot stores a manifest or an index under the name.
func (d *Destination) PutRoot(ctx context.Context, desc v1.Descriptor, data []byte) error {
	if err := d.session.PutAs(ctx, desc, data); err != nil {
		return err
	}
	if d.name == "" {
		return d.session.AddUnnamed(ctx, desc)
	}
	return d.session.Tag(ctx, d.name, desc)
}

// Commit has nothing left to do.
func (d *Destination) Commit(context.Context) error { return nil }

// Close closes what the destination was opened with.
func (d *Destination) Close() error { return d.close() }
