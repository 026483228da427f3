package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/transfer"
)

func (a *app) saveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "save [flags] IMAGE...",
		Short: "Write images to an archive",
		Long: `Write images of the local store to one archive, to standard output unless -o
names a file, which appears when the archive is whole.

  docker-archive  what docker save writes, with layers uncompressed; Docker,
                  Podman, containerd and skopeo read it. It keeps image IDs
  oci-archive     an image layout in tar. It keeps digests
  oci-dir         a directory as skopeo writes it to dir:
  docker-dir      the same with Docker's media types

Of an index, the image for this machine's platform is saved; --all and --sparse
with --platform save more, in formats that hold indexes.`,
		Example: `  tare save -o app.tar app:v1 app:v2
  tare save debian:12 | docker load
  tare save --format oci-archive --compression zstd -o app.tar.zst app:v1
  tare save --format oci-archive --all -o debian.tar debian:12`,
		Args:              arguments(1, -1, "IMAGE..."),
		ValidArgsFunction: a.completeImages(-1),
	}
	f := cmd.Flags()
	output := f.StringP("output", "o", "", "write to `FILE` instead of standard output")
	var format string
	formatFlag(cmd, &format, engine.SaveFormats()...)
	compression := ""
	f.Var(&choice{&compression, []string{"gzip", "zstd"}}, "compression", "compress the archive as a whole, by `METHOD`: gzip or zstd")
	what := declarePlatformFlags(cmd)
	quiet := f.BoolP("quiet", "q", false, "no progress")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a.quiet = a.quiet || *quiet
		o := engine.SaveOptions{Format: engine.SaveFormat(format), Compression: image.Compression(compression)}
		var err error
		if o.Options, err = what.options(); err != nil {
			return err
		}
		path := *output
		if path == "" {
			if isTerminal(a.stdout) {
				return usageError{errors.New("an archive is nothing for a terminal: use -o FILE, or a pipe")}
			}
			path, o.Pipe = "standard output", a.stdout
		}
		e, err := a.engine()
		if err != nil {
			return err
		}
		defer e.Close()
		return a.showTransfer("Saving "+strings.Join(args, ", "), func(p transfer.Progress) error {
			o.Progress = p
			return e.Save(cmd.Context(), args, path, o)
		})
	}
	return cmd
}

func (a *app) loadCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "load [flags]",
		Short: "Read images from an archive",
		Long: `Read all images of an archive into the local store: of one that docker save or
podman save wrote, now or long ago, or of an OCI archive, compressed or not, from
standard input unless -i names a file. An image layout and a directory as skopeo
writes it are read as well. The names are printed; an image without one can be
found by its digest.`,
		Example: `  tare load -i app.tar
  docker save debian:12 | tare load`,
		Args: arguments(0, 0, ""),
	}
	f := cmd.Flags()
	input := f.StringP("input", "i", "", "read `FILE` instead of standard input")
	platforms := f.StringArray("platform", nil, "of an index only the image for `OS/ARCH[/VARIANT]`, instead of all that is there")
	quiet := f.BoolP("quiet", "q", false, "no progress, only the names")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		a.quiet = a.quiet || *quiet
		o := transfer.Options{All: len(*platforms) == 0, Sparse: true}
		var err error
		if o.Platforms, err = parsePlatforms(*platforms); err != nil {
			return err
		}
		load, path := (*engine.Engine).Load, *input
		if path == "" {
			if isTerminal(a.stdin) {
				return usageError{errors.New("no archive comes from a terminal: use -i FILE, or a pipe")}
			}
			path = "standard input"
			load = func(e *engine.Engine, ctx context.Context, name string, o transfer.Options) ([]engine.Loaded, error) {
				return e.LoadFrom(ctx, name, a.stdin, o)
			}
		}
		e, err := a.engine()
		if err != nil {
			return err
		}
		defer e.Close()
		var loaded []engine.Loaded
		err = a.showTransfer("Loading "+path, func(p transfer.Progress) (err error) {
			o.Progress = p
			loaded, err = load(e, cmd.Context(), path, o)
			return err
		})
		for _, l := range loaded {
			if l.Name == "" {
				fmt.Fprintln(a.stdout, "Loaded image:", l.Target.Digest)
				continue
			}
			fmt.Fprintln(a.stdout, "Loaded image:", printable(engine.Familiar(l.Name)))
		}
		return err
	}
	return cmd
}

func (a *app) tagCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tag IMAGE NAME...",
		Short: "Give an image further names",
		Long: `Give an image of the local store further names. A name that another image has
is taken from it.`,
		Example:           `  tare tag debian:12 registry.example.com/mirror/debian:12`,
		Args:              arguments(2, -1, "IMAGE and NAME..."),
		ValidArgsFunction: a.completeImages(-1),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		e, err := a.engine()
		if err != nil {
			return err
		}
		defer e.Close()
		return e.Tag(cmd.Context(), args[0], args[1:]...)
	}
	return cmd
}
