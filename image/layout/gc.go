package layout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
)

// GCOptions say what GC keeps.
type GCOptions struct {
	Roots      []v1.Descriptor // to be kept with all they refer to, beside what index.json has
	DryRun     bool            // only report
	MinAge     time.Duration   // keep blobs that are younger: for programs that write here without our locks
	PartialAge time.Duration   // keep partial blobs that were written to more recently, to be resumed
}

// GCReport says what GC removed, or would have.
type GCReport struct {
	Removed      []digest.Digest
	Partials     int // removed
	RemovedBytes int64
	Kept         int // blobs
	KeptBytes    int64
}

// GC removes the blobs that can't be reached from index.json or the roots.
//
// It is safe beside everything else because nothing else relies on an
// unreachable blob: whoever writes blobs, or finds them there, before a name
// leads to them, does so in a Session, and sessions hold the lease shared that
// GC holds exclusively. GC therefore waits for running pulls, and new ones wait
// for GC. They don't wait for a GC that is still waiting: a slow pull shall not
// stop the others, so under a constant load of pulls it is GC that gives up,
// when ctx ends. Blobs that are open stay readable to who opened them.
//
// If a reachable document can't be read, GC removes nothing: it can't know what
// to keep.
func (s *Store) GC(ctx context.Context, opts GCOptions) (GCReport, error) {
	report, err := s.gc(ctx, opts)
	if err != nil {
		return report, fmt.Errorf("gc %s: %w", s.dir, err)
	}
	return report, nil
}

func (s *Store) gc(ctx context.Context, opts GCOptions) (report GCReport, err error) {
	how := syscall.LOCK_EX
	if opts.DryRun {
		how = syscall.LOCK_SH
	}
	unlock, err := s.lock(ctx, leaseFile, how)
	if err != nil {
		return report, err
	}
	defer unlock()
	reachable, err := s.reachable(ctx, opts.Roots)
	if err != nil {
		return report, err
	}
	now := time.Now()
	err = s.eachBlob(ctx, func(d digest.Digest, st fs.FileInfo) error {
		if reachable[d] || now.Sub(st.ModTime()) < opts.MinAge {
			report.Kept++
			report.KeptBytes += st.Size()
			return nil
		}
		if err := s.discard(d, opts.DryRun); err != nil {
			return s.blobError("remove", d, err)
		}
		report.Removed = append(report.Removed, d)
		report.RemovedBytes += st.Size()
		return nil
	})
	if err != nil {
		return report, err
	}
	err = s.gcPartials(opts, now, &report)
	return report, err
}

func (s *Store) discard(d digest.Digest, dryRun bool) error {
	path, err := blobPath(d)
	if err != nil || dryRun {
		return err
	}
	return s.remove(path)
}

// reachable marks all that index.json and the roots lead to. What is missing
// leads nowhere: an index may be sparse.
func (s *Store) reachable(ctx context.Context, extra []v1.Descriptor) (map[digest.Digest]bool, error) {
	x, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	roots, err := x.roots()
	if err != nil {
		return nil, err
	}
	for i, d := range extra {
		roots = append(roots, edge{from: "root", field: fmt.Sprint(i), desc: d})
	}
	marked := map[digest.Digest]bool{}
	err = s.walk(ctx, roots, func(e edge, err error) error {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s: %w", e, err)
		}
		marked[e.desc.Digest] = true
		return nil
	})
	return marked, err
}

// eachBlob visits every file whose name is a digest. Others are not ours.
func (s *Store) eachBlob(ctx context.Context, visit func(digest.Digest, fs.FileInfo) error) error {
	for _, alg := range []string{"sha256", "sha512"} {
		err := s.eachFile(blobsDir+"/"+alg, func(name string, st fs.FileInfo) error {
			d := digest.Digest(alg + ":" + name)
			if image.CheckDigest(d) != nil {
				return nil
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			return visit(d, st)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// eachFile visits the regular files of a directory, if there is one.
func (s *Store) eachFile(dir string, visit func(name string, st fs.FileInfo) error) error {
	d, err := s.root.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY, 0) // a FIFO is refused, and not waited for
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		infos, err := d.Readdir(1000)
		for _, st := range infos {
			if st.Mode()&fs.ModeSymlink != 0 { // in layouts that others have linked together
				if to, err := s.root.Stat(dir + "/" + st.Name()); err == nil {
					st = linked{to, st.Name()}
				}
			}
			if !st.Mode().IsRegular() {
				continue
			}
			if err := visit(st.Name(), st); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// linked is what a symbolic link leads to, under the link's name.
type linked struct {
	fs.FileInfo
	name string
}

func (l linked) Name() string { return l.name }

// gcPartials removes what interrupted writers have left. None is at work: they
// all have sessions.
func (s *Store) gcPartials(opts GCOptions, now time.Time, report *GCReport) error {
	return s.eachFile(partialDir, func(name string, st fs.FileInfo) error {
		alg, enc, _ := strings.Cut(name, "-")
		if image.CheckDigest(digest.Digest(alg+":"+enc)) != nil || now.Sub(st.ModTime()) < opts.PartialAge {
			return nil
		}
		if !opts.DryRun {
			if err := s.remove(partialDir + "/" + name); err != nil {
				return fmt.Errorf("remove partial blob: %w", err)
			}
		}
		report.Partials++
		report.RemovedBytes += st.Size()
		return nil
	})
}
