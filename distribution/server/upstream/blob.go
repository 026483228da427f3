package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/server"
	"github.com/tare-oci/tare/distribution/server/storage"
)

// StatBlob implements server.Reader.
func (s *Set) StatBlob(ctx context.Context, repo string, d digest.Digest) (int64, error) {
	size, err := s.Store.StatBlob(ctx, repo, d)
	if !errors.Is(err, storage.ErrNotExist) {
		return size, err
	}
	u, aheadErr := s.ahead(ctx, repo)
	if aheadErr != nil || u == nil {
		return size, errors.Join(err, aheadErr)
	}
	key := repo + "@" + d.String()
	if s.knownMissing(u, "blob", key) {
		return 0, err
	}
	return once(ctx, s, "stat "+key, askLimit, func(ctx context.Context) (int64, error) {
		size, err := u.client.StatBlob(ctx, u.remote(repo), d)
		return size, s.missed(u, key, u.outcome(err))
	})
}

// BlobURL implements server.Reader: what is not here can be read nowhere else.
func (s *Set) BlobURL(ctx context.Context, repo string, d digest.Digest) (string, error) {
	url, err := s.Store.BlobURL(ctx, repo, d)
	if errors.Is(err, storage.ErrNotExist) {
		return "", nil
	}
	return url, err
}

// Blob implements server.Reader: a blob that is not here can be read while it
// comes, but for its last byte, which is given out when the whole has turned out
// to be what its digest says.
func (s *Set) Blob(ctx context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, int64, error) {
	r, size, err := s.Store.Blob(ctx, repo, d)
	if !errors.Is(err, storage.ErrNotExist) {
		if u := s.of(repo); u != nil && err == nil {
			s.opts.Count(u.Prefix, "blob", "hit")
		}
		return r, size, err
	}
	u, aheadErr := s.ahead(ctx, repo)
	if aheadErr != nil || u == nil {
		return nil, 0, errors.Join(err, aheadErr)
	}
	if s.knownMissing(u, "blob", repo+"@"+d.String()) {
		return nil, 0, err
	}
	f, err := s.board(u, repo, d)
	if err != nil {
		return nil, 0, err
	}
	select {
	case <-ctx.Done():
		f.leave()
		return nil, 0, ctx.Err()
	case <-f.opened:
	}
	if f.here || f.refused != nil {
		f.leave()
		if f.refused != nil {
			return nil, 0, f.refused
		}
		return s.Store.Blob(ctx, repo, d)
	}
	return &flightReader{ctx: ctx, flight: f}, f.size, nil
}

// board joins the flight of a blob, or starts it.
func (s *Set) board(u *source, repo string, d digest.Digest) (*flight, error) {
	key := repo + "@" + d.String()
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.flights[key]; f != nil {
		f.join() // it is here until it lands, so somebody holds it
		return f, nil
	}
	if len(s.flights) >= maxFlights {
		return nil, fmt.Errorf("fetch blob %s: %d are under way: %w", d, maxFlights, storage.ErrBusy)
	}
	if !s.begin() {
		return nil, fmt.Errorf("fetch blob %s: stopping: %w", d, server.ErrUpstream)
	}
	f := newFlight(d)
	f.join()
	s.flights[key] = f
	go func() {
		defer s.end()
		err := s.missed(u, key, s.fly(s.ctx, f, u, repo))
		s.mu.Lock()
		delete(s.flights, key)
		s.mu.Unlock()
		f.land(err)
	}()
	return f, nil
}

// maxFlights bounds blobs under way, of which each has a connection and a file.
const maxFlights = 512

// smallBytes is up to which size a blob is not handed on before it is whole: there
// is nothing to gain, and what goes wrong can be told as an error.
const smallBytes = 64 << 10

// fly fetches a blob into the spool, for those who read it, and the store.
func (s *Set) fly(ctx context.Context, f *flight, u *source, repo string) error {
	// One that was asked for again just when it had landed is here.
	_, err := s.Store.StatBlob(ctx, repo, f.digest)
	here := err == nil
	if errors.Is(err, storage.ErrNotExist) {
		here, err = s.lend(ctx, u, repo, f.digest)
	}
	if err != nil || here {
		f.open(0, here, s.counted(u, "blob", err))
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	desc, body, err := u.client.OpenBlob(ctx, u.remote(repo), f.digest)
	if err != nil {
		err = u.outcome(err)
		f.open(0, false, s.counted(u, "blob", err))
		return err
	}
	defer body.Close()
	if err := f.spoolTo(s.opts.SpoolDir); err != nil {
		f.open(0, false, s.counted(u, "blob", err))
		return err
	}
	small := desc.Size <= smallBytes
	if !small {
		f.open(desc.Size, false, nil)
	}
	err = s.counted(u, "blob", s.land(ctx, f, u, repo, body))
	if small {
		f.open(desc.Size, false, err)
	}
	if err != nil {
		s.opts.Log.Error("fetch blob", "repository", repo, "digest", f.digest, "upstream", u.String(), "err", err)
	}
	return err
}

// land takes a blob into the store while it comes. Where the store cannot, those
// who read it get it all the same, if it is the right one.
func (s *Set) land(ctx context.Context, f *flight, u *source, repo string, body io.Reader) error {
	incoming := &arriving{r: body, flight: f}
	err := s.SetUpstream(ctx, repo, u.remote(repo).String())
	if err == nil {
		err = s.store(ctx, repo, f.digest, incoming)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(incoming.failed, errSpool):
		return incoming.failed
	case incoming.failed != nil: // and the store has only said so
		return u.outcome(incoming.failed)
	case errors.Is(err, storage.ErrDigest):
		return fmt.Errorf("%s sends something else: %v: %w", u, err, server.ErrUpstream)
	case errors.Is(err, distribution.ErrTooLarge), ctx.Err() != nil:
		return err
	}
	s.opts.Log.Error("keep blob", "repository", repo, "digest", f.digest, "err", err)
	if _, err := io.Copy(io.Discard, incoming); err != nil {
		if incoming.failed != nil && !errors.Is(incoming.failed, errSpool) {
			err = u.outcome(incoming.failed)
		}
		return err
	}
	return f.verify()
}

func (s *Set) store(ctx context.Context, repo string, d digest.Digest, r io.Reader) error {
	id, err := s.StartUpload(ctx, repo)
	if err != nil {
		return err
	}
	if err := s.CommitUpload(ctx, repo, id, -1, r, d); err != nil {
		cancelErr := s.CancelUpload(context.WithoutCancel(ctx), repo, id)
		if errors.Is(cancelErr, storage.ErrNotExist) {
			cancelErr = nil
		}
		return errors.Join(err, cancelErr)
	}
	return nil
}

// lend gives repo a blob that is here as another copy's of the same registry, if
// that has it in this repository, too: what it says is taken for its own content
// only, so that nobody can make it open what was pushed here or comes from
// elsewhere.
func (s *Set) lend(ctx context.Context, u *source, repo string, d digest.Digest) (bool, error) {
	if there, err := s.HasData(ctx, d); err != nil || !there {
		return false, err
	}
	if _, err := u.client.StatBlob(ctx, u.remote(repo), d); err != nil {
		if err = u.outcome(err); errors.Is(err, storage.ErrNotExist) {
			return false, err
		}
		return false, nil // then the download has to show it
	}
	if err := s.SetUpstream(ctx, repo, u.remote(repo).String()); err != nil {
		return false, err
	}
	err := s.MountBlob(ctx, repo, "", d, func(other string) bool {
		from, err := s.Upstream(ctx, other)
		v := s.of(other)
		return err == nil && from != "" && v == u && from == u.remote(other).String()
	})
	if errors.Is(err, storage.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
