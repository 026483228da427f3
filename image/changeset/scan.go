package changeset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/image/layer/tarstream"
	"github.com/tare-oci/tare/safepath"
)

// Scan writes the record of a tree, which nobody may be changing meanwhile. It reads no files. Of a
// directory that we may not enter it has nothing but that.
func Scan(ctx context.Context, root *safepath.Root, to io.Writer) error {
	if err := scan(ctx, root, to); err != nil {
		return fmt.Errorf("record %s: %w", root.Name(), err)
	}
	return nil
}

func scan(ctx context.Context, root *safepath.Root, to io.Writer) error {
	w, err := newWalker(ctx, Options{})
	if err != nil {
		return err
	}
	fd, top, err := w.openTop(root)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := nextTick(ctx); err != nil {
		return err
	}
	r := newRecordWriter(to, clock())
	r.entry(".", &top)
	if err := w.scanDir(fd, ".", r); err != nil {
		return err
	}
	return r.close(to)
}

// nextTick waits until the file systems' coarse clock has passed what is now the time by the exact one, some milliseconds: what
// was changed so far has an earlier change time, by either clock (since Linux 6.13, file systems use both). A change after that
// has one at or after the record's beginning, which shows that it came after the record.
func nextTick(ctx context.Context) error {
	const longest = 100 * time.Millisecond
	now := time.Now()
	start := tarstream.Time{Sec: now.Unix(), Nsec: int64(now.Nanosecond())}
	for !before(start, clock()) && time.Since(now) < longest {
		if err := ctx.Err(); err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

func (w *walker) scanDir(fd int, dir string, r *recordWriter) error {
	names, err := w.list(fd)
	if err != nil {
		return at(dir, err)
	}
	for _, base := range names {
		now, err := w.look(fd, dir, base)
		if err != nil {
			return err
		}
		r.entry(base, &now)
		if !now.isDir() {
			continue
		}
		name := child(dir, base)
		sub, err := w.enter(fd, name, base, &now)
		if errors.Is(err, unix.EACCES) { // in a tree of who is not root; Compare knows what to do
			r.endDir()
			continue
		}
		if err != nil {
			return err
		}
		err = w.scanDir(sub, name, r)
		unix.Close(sub)
		if err != nil {
			return err
		}
	}
	r.endDir()
	return r.err
}
