package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Rot is a blob whose bytes are not those that its digest is of.
type Rot struct {
	Digest    digest.Digest `json:"digest"`
	Found     digest.Digest `json:"found"` // what the bytes hash to
	SizeBytes int64         `json:"sizeBytes"`
	Key       string        `json:"key"` // the object that has the bytes now
}

// quarantine takes a rotten blob away, so that nobody gets it any more: as if it
// had never been pushed, until somebody pushes it again. It does nothing if the
// bytes are no longer those that were read.
func (s *Store) quarantine(ctx context.Context, d, found digest.Digest, read Info) error {
	ctx = context.WithoutCancel(ctx)
	now, err := s.objects.Stat(ctx, dataKey(d))
	if err != nil || now.SizeBytes != read.SizeBytes || !now.Modified.Equal(read.Modified) {
		_, err = exists(err)
		return err
	}
	key := quarantineKey(d)
	if err := s.objects.Move(ctx, dataKey(d), key); errors.Is(err, ErrBusy) {
		return nil
	} else if err != nil {
		_, err = exists(err)
		return err
	}
	// A push may have replaced it just before that.
	again, err := s.hashObject(ctx, key, d.Algorithm(), nil)
	if err == nil && again == d {
		return s.objects.Move(ctx, key, dataKey(d))
	}
	if s.opts.Rotten != nil {
		s.opts.Rotten(Rot{d, found, read.SizeBytes, key})
	}
	return nil
}

// hashObject reads an object through pace, if that is not nil.
func (s *Store) hashObject(ctx context.Context, key string, algorithm digest.Algorithm, pace func(n int) error) (digest.Digest, error) {
	r, _, err := s.objects.Open(ctx, key)
	if err != nil {
		return "", err
	}
	defer r.Close()
	h := algorithm.Hash()
	buffer := make([]byte, 256<<10)
	for {
		n, err := r.Read(buffer)
		h.Write(buffer[:n])
		if err == io.EOF {
			return digest.NewDigest(algorithm, h), nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err == nil && pace != nil {
			err = pace(n)
		}
		if err != nil {
			return "", err
		}
	}
}

// verify reads a blob's bytes and takes it away if they are not what they ought
// to be, which is an error that is ErrDigest.
func (s *Store) verify(ctx context.Context, d digest.Digest, pace func(n int) error) (Info, error) {
	info, err := s.objects.Stat(ctx, dataKey(d))
	if err != nil {
		return info, err
	}
	found, err := s.hashObject(ctx, dataKey(d), d.Algorithm(), pace)
	if err != nil {
		return info, fmt.Errorf("blob %s: %w", d, err)
	}
	if found == d {
		return info, nil
	}
	if err := s.quarantine(ctx, d, found, info); err != nil {
		return info, fmt.Errorf("blob %s is rotten, and still there: %w", d, err)
	}
	return info, fmt.Errorf("blob %s is rotten: %w", d, ErrDigest)
}

// ScrubOptions say how blobs are read again.
type ScrubOptions struct {
	BytesPerSecond int64 // 0 is as fast as it goes
	// Interval is how long after the beginning of a walk through all blobs the
	// next one begins.
	Interval time.Duration
	// Read is told of each blob that was read and was right; nil is nobody.
	Read func(sizeBytes int64)
	// Failed is told of each that could not be read; nil is nobody.
	Failed func(error)
}

// ScrubReport is what a walk has come across, also before it was interrupted.
type ScrubReport struct {
	Started    time.Time     `json:"started"`
	Finished   time.Time     `json:"finished,omitzero"`
	After      digest.Digest `json:"after,omitempty"` // the last blob of those done
	Blobs      int           `json:"blobs"`
	Bytes      int64         `json:"bytes"`
	Rotten     int           `json:"rotten"`
	Unreadable int           `json:"unreadable"` // left where they are
}

const (
	scrubKey        = "scrub"
	maxScrubBytes   = 1 << 10
	scrubSaveEvery  = 5 * time.Second
	maxScrubCatchUp = time.Second
)

// ScrubState is how far the walk under way is, or the last one was.
func (s *Store) ScrubState(ctx context.Context) (r ScrubReport, err error) {
	data, err := s.objects.Get(ctx, scrubKey, maxScrubBytes)
	if there, err := exists(err); !there {
		return r, err
	}
	if json.Unmarshal(data, &r) != nil { // a power cut has spoilt it: begin anew
		r = ScrubReport{}
	}
	return r, nil
}

// scrub is one walk, or the rest of one.
type scrub struct {
	*Store
	ScrubOptions
	report ScrubReport
	next   time.Time // when more may be read
	saved  time.Time
}

// Scrub reads all blobs and quarantines those that are rotten. It goes on where
// the last walk was interrupted, here or on another registry, and does nothing if
// it is not time for a new one. ErrBusy says that another registry does it.
func (s *Store) Scrub(ctx context.Context, o ScrubOptions) (ScrubReport, error) {
	release, err := s.objects.Lock(ctx, scrubKey)
	if err != nil {
		return ScrubReport{}, fmt.Errorf("scrub: %w", err)
	}
	defer release()
	c := &scrub{Store: s, ScrubOptions: o}
	c.report, err = s.ScrubState(ctx)
	if err != nil {
		return c.report, fmt.Errorf("scrub: %w", err)
	}
	if !c.report.Finished.IsZero() || c.report.Started.IsZero() {
		if time.Since(c.report.Started) < o.Interval {
			return c.report, nil
		}
		c.report = ScrubReport{Started: time.Now().UTC()}
	}
	err = s.eachBlobAfter(ctx, c.report.After, c.blob)
	if err == nil {
		c.report.After, c.report.Finished = "", time.Now().UTC()
	}
	if err = errors.Join(err, c.save(context.WithoutCancel(ctx))); err != nil {
		err = fmt.Errorf("scrub: %w", err)
	}
	return c.report, err
}

func (c *scrub) blob(ctx context.Context, d digest.Digest) error {
	info, err := c.verify(ctx, d, func(n int) error { return c.pace(ctx, n) })
	switch {
	case err == nil:
		c.report.Blobs++
		c.report.Bytes += info.SizeBytes
		if c.Read != nil {
			c.Read(info.SizeBytes)
		}
	case errors.Is(err, ErrDigest):
		c.report.Rotten++
	case errors.Is(err, ErrNotExist): // removed, or only uploaded
	case ctx.Err() != nil:
		return err
	default:
		c.report.Unreadable++
		if c.Failed != nil {
			c.Failed(err)
		}
	}
	c.report.After = d
	if time.Since(c.saved) > scrubSaveEvery {
		return c.save(ctx)
	}
	return nil
}

func (c *scrub) save(ctx context.Context) error {
	c.saved = time.Now()
	data, err := json.Marshal(c.report)
	if err != nil {
		return err
	}
	return c.objects.PutScratch(ctx, scrubKey, data)
}

// pace waits until n bytes more may have been read.
func (c *scrub) pace(ctx context.Context, n int) error {
	if c.BytesPerSecond == 0 {
		return nil
	}
	now := time.Now()
	if now.Sub(c.next) > maxScrubCatchUp {
		c.next = now
	}
	c.next = c.next.Add(time.Duration(float64(n) / float64(c.BytesPerSecond) * float64(time.Second)))
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(c.next.Sub(now)):
		return nil
	}
}

// eachBlobAfter is eachBlob from where another walk has ended.
func (s *Store) eachBlobAfter(ctx context.Context, after digest.Digest, f func(context.Context, digest.Digest) error) error {
	var from []string
	if after.Validate() == nil {
		from = strings.Split(strings.TrimPrefix(blobDir(after), "blobs/"), "/")
	}
	return s.blobsBelow(ctx, nil, from, f)
}

// blobsBelow walks a level of blobs/ALGORITHM/XX/HEX, from a path on, which itself
// is done.
func (s *Store) blobsBelow(ctx context.Context, path, from []string, f func(context.Context, digest.Digest) error) error {
	const levels = 3
	if len(path) == levels {
		if d := digest.Digest(path[0] + ":" + path[2]); len(from) == 0 && d.Validate() == nil {
			return f(ctx, d)
		}
		return nil
	}
	below := func(name string, from []string) error {
		return s.blobsBelow(ctx, append(path[:len(path):len(path)], name), from, f)
	}
	first := ""
	if len(from) > 0 {
		first = from[0]
		if len(from) > 1 {
			if err := below(first, from[1:]); err != nil {
				return err
			}
		}
	}
	return s.eachAfter(ctx, strings.Join(append([]string{"blobs"}, path...), "/"), first, func(name string) error { return below(name, nil) })
}
