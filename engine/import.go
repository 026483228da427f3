package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/archive"
	"github.com/tare-oci/tare/image/layer/tarstream"
	"github.com/tare-oci/tare/image/mutate"
	"github.com/tare-oci/tare/image/transfer"
	"github.com/tare-oci/tare/image/tree"
)

// ImportOptions say what an imported image is.
type ImportOptions struct {
	EditOptions                 // Platform is what the image is for; nil is this machine's
	Message     string          // in the history
	Config      func(*v1.Image) // edits the configuration; may be nil
	Created     time.Time
}

// Import makes an image of the tar archive of a root file system, which is its
// only layer, and gives it a name. An archive that is compressed as layers may
// be stays so; the name it has in messages is path.
func (e *Engine) Import(ctx context.Context, path string, from io.Reader, name string, o ImportOptions) (r transfer.Result, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("import %s: %w", path, err)
		}
	}()
	d := e.BeginEdit(o.EditOptions)
	defer func() { err = errors.Join(err, d.Close()) }()
	if f, ok := from.(*os.File); ok {
		from = archive.Interruptible(ctx, f)
	}
	buffered := bufio.NewReaderSize(from, 1<<20)
	head, err := buffered.Peek(4)
	if err != nil && err != io.EOF {
		return r, err
	}
	if len(head) == 0 {
		return r, errors.New("it is empty")
	}
	l, err := d.keepBlob(ctx, buffered, path, compressionOf(head))
	if err != nil {
		return r, err
	}
	l.History = v1.History{Comment: o.Message, CreatedBy: "tare import"}
	desc, err := mutate.Apply(ctx, d, nil, mutate.Change{
		Layers: []mutate.Layer{l}, Created: &o.Created,
		Config: func(c *v1.Image) {
			c.Platform = platformOr(o.Platform)
			if o.Config != nil {
				o.Config(c)
			}
		},
	})
	if err != nil {
		return r, err
	}
	return d.Finish(ctx, desc, name)
}

// Export writes the files of an image as one tar archive, without unpacking
// them anywhere: owners, times, extended attributes and device nodes are those
// of the layers.
func (c *Contents) Export(ctx context.Context, w io.Writer) error {
	t, err := c.Tree(ctx, false)
	if err != nil {
		return err
	}
	spool, err := transfer.UnnamedFile(c.dir)
	if err != nil {
		return c.named(err)
	}
	defer spool.Close()
	buffered := bufio.NewWriterSize(w, 1<<20)
	tw := tarstream.NewWriter(buffered)
	if err := t.WriteLayer(ctx, tw, tree.New(tree.Limits{}), c.Image, c.open, spool, tree.Options{}); err != nil {
		return c.named(err)
	}
	return buffered.Flush()
}

// WriteFile writes a file that appears under its name, whole, when write has
// succeeded; what is no regular file is written to as it comes.
func WriteFile(path string, write func(io.Writer) error) error {
	f, err := archive.NewFile(path)
	if err != nil {
		return err
	}
	if err = write(f); err == nil {
		err = f.Commit()
	}
	return errors.Join(err, f.Close())
}
