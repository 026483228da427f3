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
	"github.com/tare-oci/tare/image/mutate"
	"github.com/tare-oci/tare/image/transfer"
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
