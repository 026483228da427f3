package layout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/tare-oci/tare/image"
)

// FsckOptions say what Fsck does about what it finds.
type FsckOptions struct {
	Repair  bool // remove blobs whose content is not what their name says; the next pull brings them back
	DiffIDs bool // unpack every layer and compare it with what the config says
}

// Problem is one thing that is wrong with a store.
type Problem struct {
	Blob      digest.Digest // empty when it is not about a blob
	What      string
	Referrers []string // the documents and fields that lead to the blob
	Removed   bool     // by Repair
}

func (p Problem) String() string {
	var b strings.Builder
	if p.Blob != "" {
		fmt.Fprintf(&b, "blob %s: ", p.Blob)
	}
	b.WriteString(p.What)
	if p.Removed {
		b.WriteString(" (removed)")
	}
	for _, r := range p.Referrers {
		b.WriteString("\n\treferred to by " + r)
	}
	return b.String()
}

// FsckReport is the outcome of a full check.
type FsckReport struct {
	Blobs     int
	BlobBytes int64
	Layers    int // that were unpacked
	Encrypted int // layers that could not be, for they are encrypted
	Problems  []Problem
}

// Fsck reads every blob and follows every reference. The error is about the
// check itself; what is wrong with the store is in the report.
func (s *Store) Fsck(ctx context.Context, opts FsckOptions) (FsckReport, error) {
	c := check{store: s, problems: map[digest.Digest]*Problem{}, sizes: map[digest.Digest]int64{}, images: map[digest.Digest]bool{}}
	if opts.DiffIDs {
		c.layers = []usedLayer{}
	}
	if err := c.run(ctx, opts); err != nil {
		return FsckReport{}, fmt.Errorf("fsck %s: %w", s.dir, err)
	}
	return c.report, nil
}

type check struct {
	store    *Store
	report   FsckReport
	mu       sync.Mutex // of the following, while blobs are read
	problems map[digest.Digest]*Problem
	sizes    map[digest.Digest]int64 // of the blobs that are there
	images   map[digest.Digest]bool  // that were looked into
	layers   []usedLayer             // of them; nil if they are not to be unpacked
}

func (c *check) run(ctx context.Context, opts FsckOptions) error {
	// A GC in between would look like damage.
	if !c.store.opts.ReadOnly || opts.Repair {
		how := syscall.LOCK_SH
		if opts.Repair {
			how = syscall.LOCK_EX
		}
		unlock, err := c.store.lock(ctx, leaseFile, how)
		if err != nil {
			return err
		}
		defer unlock()
	}
	// Names first: what they lead to was there before them.
	roots := c.readNames()
	if err := c.readBlobs(ctx); err != nil {
		return err
	}
	if err := c.store.walk(ctx, roots, func(e edge, err error) error { return c.visit(ctx, e, err) }); err != nil {
		return err
	}
	if err := c.unpackLayers(ctx); err != nil {
		return err
	}
	return c.finish(opts)
}

// readNames looks at the files beside the blobs, and at every entry for itself.
func (c *check) readNames() []edge {
	if err := c.store.readHeader(); err != nil {
		c.report.Problems = append(c.report.Problems, Problem{What: err.Error()})
	}
	x, err := c.store.readIndex()
	if err != nil {
		c.report.Problems = append(c.report.Problems, Problem{What: err.Error()})
		return nil
	}
	sound := index{}
	for _, e := range x.entries {
		if e.err != nil {
			c.report.Problems = append(c.report.Problems, Problem{What: e.err.Error()})
			e.err, e.desc.Digest = nil, ""
		}
		sound.entries = append(sound.entries, e)
	}
	roots, err := sound.roots()
	if err != nil {
		c.report.Problems = append(c.report.Problems, Problem{What: err.Error()})
	}
	return slices.DeleteFunc(roots, func(e edge) bool { return e.desc.Digest == "" })
}

// readBlobs hashes every blob, as many at a time as there are processors.
func (c *check) readBlobs(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	err := c.store.eachBlob(ctx, func(d digest.Digest, st fs.FileInfo) error {
		g.Go(func() error {
			n, err := c.store.hashBlob(ctx, d)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			c.report.Blobs++
			c.report.BlobBytes += n
			c.sizes[d] = st.Size()
			if err != nil {
				c.problem(d, plain(err).Error())
			}
			return nil
		})
		return nil
	})
	return errors.Join(g.Wait(), err)
}

func (c *check) problem(d digest.Digest, what string) *Problem {
	p := c.problems[d]
	if p == nil {
		p = &Problem{Blob: d, What: what}
		c.problems[d] = p
	}
	return p
}

// visit judges one reference.
func (c *check) visit(ctx context.Context, e edge, err error) error {
	d := e.desc.Digest
	sizeBytes, there := c.sizes[d]
	p := c.problems[d]
	switch {
	case p != nil:
	case !there && !mayBeAbsent(e):
		p = c.problem(d, "missing")
	case !there:
		return nil
	case sizeBytes != e.desc.Size: // the blob is right, who refers to it is wrong
		what := fmt.Sprintf("%d bytes, descriptor says %d", sizeBytes, e.desc.Size)
		c.report.Problems = append(c.report.Problems, Problem{Blob: d, What: what, Referrers: []string{e.String()}})
		return nil
	case err != nil:
		p = c.problem(d, err.Error())
	default:
		c.checkImage(ctx, e.desc)
		return nil
	}
	if r := e.String(); !slices.Contains(p.Referrers, r) {
		p.Referrers = append(p.Referrers, r)
	}
	return nil
}

// mayBeAbsent allows what the specifications do: sparse indexes, layers that
// are to be had from URLs, and subjects that are elsewhere.
func mayBeAbsent(e edge) bool {
	fromIndex := strings.HasPrefix(e.from, image.KindIndex.String()+" ")
	return fromIndex || e.field == "subject" || image.LookupMediaType(e.desc.MediaType).Foreign && len(e.desc.URLs) > 0
}

// finish sorts the problems, so that two runs say the same.
func (c *check) finish(opts FsckOptions) error {
	for _, p := range c.problems {
		if opts.Repair {
			_, err := c.store.hashBlob(context.Background(), p.Blob)
			if errors.Is(err, image.ErrMismatch) {
				if err := c.store.discard(p.Blob, false); err != nil {
					return err
				}
				p.Removed = true
			}
		}
		c.report.Problems = append(c.report.Problems, *p)
	}
	slices.SortStableFunc(c.report.Problems, func(a, b Problem) int { return strings.Compare(string(a.Blob), string(b.Blob)) })
	return nil
}
