package changeset

import (
	"context"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/safepath"
)

// Scan writes the record of a tree, which nobody may be changing meanwhile. It reads no files.
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

// nextTick waits until the file systems' clock has moved on, some milliseconds. A change after that has a change time at or
// after the record's beginning, which shows that it came after the record, although the clock is coarse.
func nextTick(ctx context.Context) error {
	const longest = 100 * time.Millisecond
	for start, deadline := clock(), time.Now().Add(longest); !before(start, clock()) && time.Now().Before(deadline); {
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
