package cli

import (
	"context"
	"errors"
	"fmt"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/image/transfer"
)

const mutateLong = `Change the layers of an image, its platform, or the annotations of its manifest.
Several changes are made in the order of the flags below. The image may be in the
store, in a layout or on a registry; layers are read only where they are changed,
and moved only to where they are not.

--rebase puts what the image adds to its base on another base. Both are named by
--old-base and --new-base, or else by the annotations that the image's builder has
left, org.opencontainers.image.base.digest and base.name. The layers of the old
base must be the image's first.

--flatten makes one layer of all, --squash N of the Nth and those above it: what
they add and delete among themselves is gone. --append takes tar archives,
compressed or not, and directories, whose files then belong to root.
--compression packs the layers anew that are packed otherwise; what is in them,
and so their DiffIDs, stays.

`

func (a *app) mutateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "mutate [flags] IMAGE",
		Short: "Change the layers of an image: append, rebase, squash, recompress",
		Long:  mutateLong + transportsHelp,
		Example: `  tare mutate --append site/ --append extra.tar.gz --tag web:v2 web:v1
  tare mutate --rebase --old-base debian:12.1 --new-base debian:12.2 app:v1
  tare mutate --flatten --tag app:flat app:v1
  tare mutate --compression zstd docker://registry.example.com/team/app:v1
  tare mutate --annotation org.opencontainers.image.source=https://example.com/app app:v1`,
		Args: arguments(1, 1, "IMAGE"),
	}
	f := cmd.Flags()
	var m mutateFlags
	m.rebase = f.Bool("rebase", false, "put the image on another base")
	m.oldBase = f.String("old-base", "", "the base it is on: `IMAGE`")
	m.newBase = f.String("new-base", "", "the base to put it on: `IMAGE`")
	m.flatten = f.Bool("flatten", false, "make one layer of all")
	m.squash = f.Int("squash", 0, "make one layer of layer `N` and those above it")
	m.append = f.StringArray("append", nil, "put a layer on top: tar archive or directory `PATH`; several times for several layers")
	m.compression = f.String("compression", "", "pack the layers as `FORMAT`: gzip, zstd or none")
	m.level = f.Int("compression-level", 0, "the `LEVEL` of compression: 1 to 9 for gzip, 1 to 22 for zstd")
	m.annotations = f.StringArray("annotation", nil, "annotation of the manifest: `NAME=VALUE`, or NAME- to remove it")
	m.setPlatform = f.String("set-platform", "", "say that the image is for `OS/ARCH[/VARIANT]`")
	flags := a.declareEditFlags(cmd)
	alsoCalled(f, map[string]string{"old_base": "old-base", "new_base": "new-base", "compression-format": "compression"})
	completeChoice(cmd, "compression", "gzip", "zstd", "none")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		mutation, err := m.mutation()
		if err != nil {
			return err
		}
		if mutation.Created, err = flags.time(); err != nil {
			return err
		}
		return flags.with(cmd, "Changing "+args[0], func(e *engine.Engine, o engine.EditOptions) (transfer.Result, error) {
			return e.EditImage(cmd.Context(), args[0], o, func(ctx context.Context, d *engine.Edit, img *image.Image) (v1.Descriptor, error) {
				return d.Mutate(ctx, img, mutation)
			})
		})
	}
	return cmd
}

type mutateFlags struct {
	rebase, flatten                            *bool
	oldBase, newBase, compression, setPlatform *string
	squash, level                              *int
	append, annotations                        *[]string
}

func (f mutateFlags) mutation() (m engine.Mutation, err error) {
	m = engine.Mutation{
		Rebase: *f.rebase || *f.newBase != "" || *f.oldBase != "", OldBase: *f.oldBase, NewBase: *f.newBase,
		Squash: *f.flatten || *f.squash != 0, SquashFrom: *f.squash,
		Append: *f.append,
	}
	if *f.flatten {
		m.SquashFrom = 1
	}
	switch {
	case *f.flatten && *f.squash != 0:
		return m, usageError{errors.New("--flatten and --squash cannot be had at once")}
	case *f.squash < 0:
		return m, usageError{fmt.Errorf("--squash %d: want the number of a layer, the lowest being 1", *f.squash)}
	case *f.level != 0 && *f.compression == "":
		return m, usageError{errors.New("--compression-level needs --compression")}
	}
	if *f.compression != "" {
		if m.Pack.Compression, err = layer.ParseCompression(*f.compression); err != nil {
			return m, usageError{err}
		}
		m.Pack.Level, m.PackGiven, m.Recompress = *f.level, true, true
		if err := m.Pack.Check(); err != nil {
			return m, usageError{err}
		}
	}
	if m.Annotations, err = annotationsOf(*f.annotations); err != nil {
		return m, err
	}
	if *f.setPlatform != "" {
		p, err := image.ParsePlatform(*f.setPlatform)
		if err != nil {
			return m, usageError{err}
		}
		m.Config = func(c *v1.Image) { c.OS, c.Architecture, c.Variant = p.OS, p.Architecture, p.Variant }
	}
	if !m.Rebase && !m.Squash && !m.Recompress && len(m.Append)+len(m.Annotations) == 0 && m.Config == nil {
		return m, usageError{errors.New("no change is asked for")}
	}
	return m, nil
}
