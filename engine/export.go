package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/archive"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/image/layer/tarstream"
	"github.com/tare-oci/tare/image/transfer"
	"github.com/tare-oci/tare/image/tree"
)

// FilesOptions say what is looked into.
type FilesOptions struct {
	Platform *v1.Platform // of an image; nil is this machine's, and a container's
	Registry Registry     // for images on one
	Pause    bool         // stop a container's processes while its files are read, if it runs
}

// OpenFiles opens the files of a container, or of an image as OpenContents finds it. The name of a container is that first; an
// image of the store comes before a container whose name only begins so. With a platform it is an image.
func (e *Engine) OpenFiles(ctx context.Context, name string, o FilesOptions) (*Contents, error) {
	if o.Platform == nil {
		found, err := e.findContainer(name)
		if err == nil && found.ID != name {
			if _, ierr := e.find(ctx, name); ierr == nil {
				err = ErrNoContainer
			}
		}
		if err == nil {
			return e.openContainer(ctx, found, o.Pause)
		}
		if !errors.Is(err, ErrNoContainer) {
			return nil, err
		}
	}
	return e.OpenContents(ctx, name, o.Platform, o.Registry)
}

// openContainer makes an image of a container, for nobody but the one who looks into it.
func (e *Engine) openContainer(ctx context.Context, found Container, pause bool) (*Contents, error) {
	c, err := e.heldContainer(ctx, found, ChangeOptions{}, pause)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", found.ID, err)
	}
	// The layer is gone when it has been read: nothing is won by making it small.
	made, n, err := e.compose(ctx, c, NewImageOptions{Pack: layer.PackOptions{Compression: layer.Uncompressed}})
	if err = errors.Join(err, c.close()); err != nil {
		return nil, fmt.Errorf("container %s: %w", found.ID, err)
	}
	img, err := image.Load(ctx, made, n.Descriptor)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("container %s: %w", found.ID, err), made.Close())
	}
	return &Contents{found.ID, img, made, e.options.Root}, nil
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
