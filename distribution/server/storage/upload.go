package storage

import (
	"context"
	"crypto/rand"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution"
)

// session is an upload under way. The hash goes from request to request with
// it, so that a commit need not read again what was written.
type session struct {
	Repository string `json:"repository"`
	Mark
	Algorithm digest.Algorithm `json:"algorithm"`
	Hash      []byte           `json:"hash,omitempty"`
	Started   time.Time        `json:"started"`
	Counts    int64            `json:"counts,omitempty"` // when it was first counted, see usage
}

const maxSessionBytes = 4 << 10

// StartUpload begins an upload and returns its id, a random UUID. ErrTooMany
// says that as many as there may be are open.
func (s *Store) StartUpload(ctx context.Context, repo string) (string, error) {
	if err := s.hasRoom(ctx, repo); err != nil {
		return "", err
	}
	if err := s.admit(ctx); err != nil {
		return "", err
	}
	id := newUUID()
	err := s.putSession(ctx, id, session{Repository: repo, Algorithm: digest.Canonical, Started: time.Now().UTC()})
	return id, err
}

// newUUID is a version 4 UUID (RFC 9562, 5.4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the program first
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	s := hex.EncodeToString(b[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

func (s *Store) putSession(ctx context.Context, id string, u session) error {
	data, err := json.Marshal(u)
	if err != nil {
		return err
	}
	return s.objects.PutScratch(ctx, sessionKey(id), data)
}

// session reads an upload's state. One of another repository does not exist:
// whoever may write there need not be allowed to write here.
func (s *Store) session(ctx context.Context, repo, id string) (session, error) {
	var u session
	data, err := s.objects.Get(ctx, sessionKey(id), maxSessionBytes)
	if err != nil {
		return u, fmt.Errorf("upload %s: %w", id, err)
	}
	if err := json.Unmarshal(data, &u); err != nil {
		return u, fmt.Errorf("upload %s: %w", id, err)
	}
	if u.Repository != repo {
		return u, fmt.Errorf("upload %s: %w", id, ErrNotExist)
	}
	return u, nil
}

// acquire keeps a second request off an upload, at whatever registry; a client
// that thinks its connection lost may come back while the first is still being
// read, and mostly just for the moment until that is noticed.
func (s *Store) acquire(ctx context.Context, id string) (release func(), err error) {
	err = s.patiently(ctx, func() error {
		release, err = s.objects.Lock(ctx, uploadLock(id))
		return err
	})
	return release, err
}

// uploadLock is a name of its own, as ids are clients' to choose.
func uploadLock(id string) string { return "upload-" + id }

// UploadOffset returns how many bytes an upload has.
func (s *Store) UploadOffset(ctx context.Context, repo, id string) (int64, error) {
	u, err := s.session(ctx, repo, id)
	return u.Offset, err
}

// AppendUpload adds r to an upload and returns the new offset, which is that
// of the last byte kept even if r fails. at is where r begins: the present
// offset, else ErrOffset; negative means wherever that is.
func (s *Store) AppendUpload(ctx context.Context, repo, id string, at int64, r io.Reader) (int64, error) {
	release, err := s.acquire(ctx, id)
	if err != nil {
		return 0, err
	}
	defer release()
	u, err := s.session(ctx, repo, id)
	if err != nil {
		return 0, err
	}
	if _, err := s.append(ctx, id, &u, at, r); err != nil {
		return u.Offset, s.keep(ctx, id, u, err)
	}
	return u.Offset, s.putSession(ctx, id, u)
}

// keep writes an upload's state after an error, so that what came before it
// counts. It does not do so where the state is not ours to write any more.
func (s *Store) keep(ctx context.Context, id string, u session, err error) error {
	if errors.Is(err, ErrOffset) || errors.Is(err, ErrBusy) || errors.Is(err, ErrNotExist) || isQuota(err) {
		return err
	}
	return errors.Join(err, s.putSession(context.WithoutCancel(ctx), id, u))
}

// lost ends an upload whose bytes are not those that its state is of: its driver
// has lost some, or a registry that stood still has written the state. The client
// has to begin anew.
func (s *Store) lost(ctx context.Context, id string, u session, err error) error {
	if !errors.Is(err, ErrOffset) && !errors.Is(err, ErrNotExist) {
		return err
	}
	return errors.Join(fmt.Errorf("upload %s: %w: %v", id, ErrNotExist, err), s.discard(ctx, id, u))
}

// append adds r to the stream and to u, and returns the hash so far. What a
// failing r gave before counts.
func (s *Store) append(ctx context.Context, id string, u *session, at int64, r io.Reader) (hash.Hash, error) {
	if at >= 0 && at != u.Offset {
		return nil, fmt.Errorf("upload %s is at %d, not %d: %w", id, u.Offset, at, ErrOffset)
	}
	h, err := u.hash()
	if err != nil {
		return nil, fmt.Errorf("upload %s: %w", id, err)
	}
	counted := &reserving{ctx: ctx, s: s, repo: u.Repository, r: s.bounded(r, u.Offset)}
	hashing := &hashReader{r: counted, hash: h}
	mark, err := s.objects.AppendStream(ctx, id, u.Mark, hashing)
	if hashing.n == 0 { // not an error of r's, then
		err = s.lost(ctx, id, *u, err)
	}
	kept := mark.Offset - u.Offset
	if err == nil && kept != hashing.n {
		err = io.ErrShortWrite
	}
	if isQuota(err) {
		return nil, errors.Join(err, s.giveBack(ctx, u.Repository, counted.reserved, counted.counts), s.discard(ctx, id, *u))
	}
	if kept != hashing.n || kept == 0 && err != nil {
		// The hash is of more than what is there, so u stays where it was.
		return nil, errors.Join(fmt.Errorf("upload %s: %w", id, err), s.giveBack(ctx, u.Repository, counted.reserved, counted.counts))
	}
	if u.Offset == 0 {
		u.Counts = counted.counts
	}
	u.Mark = mark
	state, marshalErr := h.(encoding.BinaryMarshaler).MarshalBinary()
	u.Hash = state
	return h, errors.Join(err, marshalErr)
}

// bounded fails with distribution.ErrTooLarge where an upload would become
// larger than blobs may be.
func (s *Store) bounded(r io.Reader, offset int64) io.Reader {
	if s.opts.MaxBlobBytes == 0 {
		return r
	}
	return &boundedReader{r: r, left: max(s.opts.MaxBlobBytes-offset, 0)}
}

type boundedReader struct {
	r    io.Reader
	left int64
}

func (b *boundedReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p[:min(int64(len(p)), b.left+1)])
	if b.left -= int64(n); b.left < 0 {
		return n - 1, fmt.Errorf("blob: %w", distribution.ErrTooLarge)
	}
	return n, err
}

// hashReader hashes and counts what is read through it.
type hashReader struct {
	r    io.Reader
	hash hash.Hash
	n    int64
}

func (h *hashReader) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	h.hash.Write(p[:n])
	h.n += int64(n)
	return n, err
}

// hash is the running hash of what the upload has.
func (u *session) hash() (hash.Hash, error) {
	if !u.Algorithm.Available() {
		return nil, fmt.Errorf("bad algorithm %q", u.Algorithm)
	}
	h := u.Algorithm.Hash()
	if u.Offset == 0 {
		return h, nil
	}
	if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(u.Hash); err != nil {
		return nil, err
	}
	return h, nil
}

// CommitUpload adds r as AppendUpload does and, if the whole then has digest
// d, makes it a blob of repo. ErrDigest says that it has not; the upload is
// gone then, as no more bytes can make it right.
func (s *Store) CommitUpload(ctx context.Context, repo, id string, at int64, r io.Reader, d digest.Digest) error {
	release, err := s.acquire(ctx, id)
	if err != nil {
		return err
	}
	defer release()
	u, err := s.session(ctx, repo, id)
	if err != nil {
		return err
	}
	if u.Offset == 0 {
		u.Algorithm = d.Algorithm() // now it is known what to hash with
	}
	h, err := s.append(ctx, id, &u, at, r)
	if err != nil {
		return s.keep(ctx, id, u, err)
	}
	got := digest.NewDigest(u.Algorithm, h)
	if u.Algorithm != d.Algorithm() {
		if got, err = s.rehash(ctx, id, &u, d.Algorithm()); err != nil {
			return err
		}
	}
	if got != d {
		return errors.Join(fmt.Errorf("upload %s is %s, not %s: %w", id, got, d, ErrDigest), s.discard(ctx, id, u))
	}
	double, err := s.namespaceHas(ctx, repo, d)
	if err != nil {
		return err
	}
	// The entry first: it keeps the collector off the bytes.
	if err := s.link(ctx, repo, d); err != nil {
		return err
	}
	if err := s.objects.CommitStream(ctx, id, u.Mark, dataKey(d)); err != nil {
		return s.lost(ctx, id, u, err)
	}
	settle := s.stored
	if double {
		settle = s.giveBack
	}
	if err := settle(ctx, repo, u.Offset, u.Counts); err != nil {
		return err
	}
	s.uploads.add(-1)
	return s.objects.DeleteScratch(ctx, sessionKey(id))
}

// rehash is for the rare upload in pieces whose digest turns out to be of
// another algorithm than it was hashed with: a stream cannot be read, so it
// goes through an object and back, under the new hash.
func (s *Store) rehash(ctx context.Context, id string, u *session, algorithm digest.Algorithm) (digest.Digest, error) {
	scratch := rehashKey(id)
	if err := s.objects.CommitStream(ctx, id, u.Mark, scratch); err != nil {
		return "", err
	}
	defer s.objects.Delete(context.WithoutCancel(ctx), scratch)
	r, _, err := s.objects.Open(ctx, scratch)
	if err != nil {
		return "", err
	}
	defer r.Close()
	again := session{Algorithm: algorithm}
	h, err := s.append(ctx, id, &again, 0, contextReader{ctx, r})
	if err != nil {
		return "", err
	}
	u.Mark = again.Mark
	return digest.NewDigest(algorithm, h), nil
}

// contextReader ends a copy from disk to disk when the request does.
type contextReader struct {
	ctx context.Context
	io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// CancelUpload ends an upload without a blob.
func (s *Store) CancelUpload(ctx context.Context, repo, id string) error {
	release, err := s.acquire(ctx, id)
	if err != nil {
		return err
	}
	defer release()
	u, err := s.session(ctx, repo, id)
	if err != nil {
		return err
	}
	return s.discard(ctx, id, u)
}

func (s *Store) discard(ctx context.Context, id string, u session) error {
	ctx = context.WithoutCancel(ctx)
	if err := s.objects.DiscardStream(ctx, id); err != nil {
		return err
	}
	if err := s.giveBack(ctx, u.Repository, u.Offset, u.Counts); err != nil {
		return err
	}
	s.uploads.add(-1)
	return s.objects.DeleteScratch(ctx, sessionKey(id))
}
