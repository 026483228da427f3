package cli

import (
	"fmt"
	"strconv"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/image/mutate"
)

// newImageFlags are those of the verbs that make an image of changed files.
type newImageFlags struct {
	app                                 *app
	author, message, created, createdBy string
	changes                             []string
	compression                         string
	level                               int
	mask                                []string
	registry                            registryFlags
}

func (a *app) declareNewImageFlags(cmd *cobra.Command) *newImageFlags {
	f := &newImageFlags{app: a}
	flagGroup(cmd, "Image", func(s *pflag.FlagSet) {
		s.StringVarP(&f.author, "author", "a", "", "`name` of the image's author")
		s.StringVarP(&f.message, "message", "m", "", "`text` for the image's history")
		s.StringArrayVarP(&f.changes, "change", "c", nil, "apply a Dockerfile `instruction`: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR")
		s.StringVar(&f.created, "created", "", "the image's `time`, RFC 3339 or seconds since 1970, instead of now")
	})
	flagGroup(cmd, "Layer", func(s *pflag.FlagSet) {
		f.compression = layer.Gzip.String()
		s.Var(&choice{&f.compression, []string{layer.Gzip.String(), layer.Zstd.String(), layer.Uncompressed.String()}}, "compression", "pack the layer as `form`: gzip, zstd or none")
		s.IntVar(&f.level, "compression-level", 0, "`number` from 1, quick, to 9 (gzip) or 22 (zstd), small")
		s.StringArrayVar(&f.mask, "mask-path", nil, "leave out what has changed at `PATH` and below")
	})
	flagGroup(cmd, "Registry", func(s *pflag.FlagSet) { f.registry = declareRegistryFlags(s) })
	completeChoice(cmd, "compression", layer.Gzip.String(), layer.Zstd.String(), layer.Uncompressed.String())
	return f
}

// options puts together what the flags say. The clock of the machine counts only where nothing else is said: --created, or
// SOURCE_DATE_EPOCH (reproducible-builds.org), after which no file of the layer can be.
func (f *newImageFlags) options() (o engine.NewImageOptions, err error) {
	if o.Pack.Compression, err = layer.ParseCompression(f.compression); err != nil {
		return o, usageError{err}
	}
	o.Pack.Level = f.level
	if err := o.Pack.Check(); err != nil {
		return o, usageError{err}
	}
	if o.Edits, err = mutate.ParseInstructions(f.changes); err != nil {
		return o, usageError{fmt.Errorf("--change: %w", err)}
	}
	o.Changes.Mask, o.Author = f.mask, f.author
	now := time.Now().UTC()
	if epoch := f.app.getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return o, fmt.Errorf("SOURCE_DATE_EPOCH: %q: want seconds since 1970", epoch)
		}
		o.LatestTime, now = &seconds, time.Unix(seconds, 0).UTC()
	}
	if f.created != "" {
		if now, err = mutate.ParseTime(f.created); err != nil {
			return o, usageError{fmt.Errorf("--created: %w", err)}
		}
	}
	o.History = v1.History{Created: &now, Author: f.author, Comment: f.message, CreatedBy: f.createdBy}
	return o, nil
}

// printNewImage tells what was made.
func (a *app) printNewImage(n engine.NewImage) {
	if n.Layer == nil {
		a.info("no file has changed: no layer was added")
	} else {
		a.info("layer of %s: %s", plural(n.Changes, "change"), sizeText(n.Layer.Size))
	}
	fmt.Fprintln(a.stdout, n.Descriptor.Digest)
}

// run calls make with an engine and the options, and tells what it has made.
func (f *newImageFlags) run(make func(*engine.Engine, engine.NewImageOptions) (engine.NewImage, error)) error {
	o, err := f.options()
	if err != nil {
		return err
	}
	client, err := f.registry.client(f.app)
	if err != nil {
		return err
	}
	defer client.Close()
	o.Registry = client
	e, err := f.app.engine()
	if err != nil {
		return err
	}
	defer e.Close()
	n, err := make(e, o)
	if err != nil {
		return err
	}
	f.app.printNewImage(n)
	return nil
}
