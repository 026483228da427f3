package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/tare-oci/tare/image/layer/tarstream"
	"github.com/tare-oci/tare/safepath"
)

// Visit is told of one entry of a layer, and may read its data from r.
type Visit func(r *tarstream.Reader, h *tarstream.Header) error

// Scan reads a layer, compressed or not, without applying it: visit is called with each entry as the archive has it,
// whiteouts too. All of the layer is read, within Options.Limits, and its digest is that of Apply's Result. An error of
// visit ends the scan and is in the chain of the one returned.
func Scan(ctx context.Context, blob io.Reader, options Options, visit Visit) (Result, error) {
	options.Limits = options.Limits.withDefaults()
	result, err := scan(ctx, blob, options, visit)
	if err != nil {
		return Result{}, fmt.Errorf("read layer %s: %w", options.Name, err)
	}
	return result, nil
}

func scan(ctx context.Context, blob io.Reader, options Options, visit Visit) (r Result, err error) {
	s, err := startStream(ctx, blob, options)
	if err != nil {
		return Result{}, err
	}
	defer s.stop()
	archive := tarstream.NewReader(s, tarstream.Limits{MetaBytes: options.Limits.MetaBytes})
	err = eachEntry(ctx, archive, options, &r.Entries, func(h *tarstream.Header) error { return visit(archive, h) })
	if err != nil {
		return Result{}, err
	}
	return s.result(r)
}

// result completes r with what is known at the end of the stream, unless that is not the one wanted.
func (s *stream) result(r Result) (Result, error) {
	r.DiffID, r.SizeBytes, r.BlobBytes = s.digest(), s.size, s.blob.n
	if want := s.options.DiffID; want != "" && r.DiffID != want {
		return Result{}, fmt.Errorf("%w: it is %s, not %s", ErrDiffID, r.DiffID, want)
	}
	return r, nil
}

// Archive writes a layer's uncompressed archive to w, as it is. It is verified when Archive has returned, not before.
func Archive(ctx context.Context, blob io.Reader, options Options, w io.Writer) (Result, error) {
	options.Limits = options.Limits.withDefaults()
	result, err := writeArchive(ctx, blob, options, w)
	if err != nil {
		return Result{}, fmt.Errorf("read layer %s: %w", options.Name, err)
	}
	return result, nil
}

func writeArchive(ctx context.Context, blob io.Reader, options Options, w io.Writer) (Result, error) {
	s, err := startStream(ctx, blob, options)
	if err != nil {
		return Result{}, err
	}
	defer s.stop()
	for {
		piece, err := s.Next()
		if err == io.EOF {
			return s.result(Result{})
		}
		if err == nil {
			_, err = w.Write(piece)
		}
		if err != nil {
			return Result{}, err
		}
	}
}

// eachEntry calls use with all entries, to the end of the archive, and counts them.
func eachEntry(ctx context.Context, archive *tarstream.Reader, options Options, count *int, use func(*tarstream.Header) error) error {
	for {
		h, err := archive.Next()
		switch {
		case err == io.EOF:
			return nil
		case errors.Is(err, tarstream.ErrNoTrailer) && options.DiffID != "":
			return nil // some tools forget the end mark; the diffID will show whether something is missing
		case err != nil:
			return fmt.Errorf("after entry %d: %w", *count, err)
		}
		if *count++; *count > options.Limits.Entries {
			return fmt.Errorf("%w: more than %d entries", ErrLimit, options.Limits.Entries)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := use(h); err != nil {
			return entryError(h.Name, err)
		}
	}
}

// Content reads what an entry's file holds, in order, holes of a sparse file as zeros: a reader from the entry that r is at.
// It is good until r goes on.
func Content(r *tarstream.Reader, h *tarstream.Header) io.Reader {
	return &content{archive: r, sizeBytes: h.Size}
}

type content struct {
	archive   *tarstream.Reader
	sizeBytes int64
	pos       int64
	piece     []byte
	at        int64 // where in the file piece begins
	ended     bool
}

func (c *content) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for len(c.piece) == 0 && !c.ended {
		at, piece, err := c.archive.Data()
		switch {
		case err == io.EOF:
			c.ended, c.at = true, c.sizeBytes
		case err != nil:
			return 0, err
		default:
			c.at, c.piece = at, piece
		}
	}
	n := 0
	switch {
	case c.pos < c.at:
		n = int(min(int64(len(b)), c.at-c.pos))
		clear(b[:n])
	case c.ended:
		return 0, io.EOF
	default:
		n = copy(b, c.piece)
		c.piece = c.piece[n:]
		c.at += int64(n)
	}
	c.pos += int64(n)
	return n, nil
}

// Mark is what an entry's name says that it is, besides a file.
type Mark int

const (
	NoMark    Mark = iota
	Whiteout       // of a name
	Opaque         // of all that lower layers have in the directory
	AUFSEntry      // bookkeeping of AUFS, which is passed over
)

// MarkOf tells whiteouts by their name, which is in the form of safepath.Clean; hidden is what a Whiteout is about, a name
// in the same directory.
func MarkOf(name string) (mark Mark, hidden string, err error) {
	_, base := safepath.SplitBase(name)
	hidden, isMark := strings.CutPrefix(base, whiteoutPrefix)
	switch {
	case isAUFS(name):
		return AUFSEntry, "", nil
	case !isMark:
		return NoMark, "", nil
	case base == opaqueBase:
		return Opaque, "", nil
	case hidden == "" || hidden == "." || hidden == "..":
		return Whiteout, "", errWhiteout
	}
	return Whiteout, hidden, nil
}

// WhiteoutOf is the name of the whiteout of a name.
func WhiteoutOf(name string) string {
	dir, base := safepath.SplitBase(name)
	if dir == "." {
		return whiteoutPrefix + base
	}
	return dir + "/" + whiteoutPrefix + base
}
