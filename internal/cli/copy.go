package cli

import (
	"errors"
	"fmt"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/distribution/remote"
	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/engine/transport"
	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/transfer"
)

const transportsHelp = `A place is named as skopeo and podman name it:

  NAME                       the local store; as a source, a registry if it is not there
  docker://REF               a registry
  oci:DIR[:NAME]             an image layout
  oci-archive:FILE[:NAME]    an image layout in a tar archive
  docker-archive:FILE[:REF]  what docker save writes
  dir:DIR                    a directory as skopeo writes it`

func (a *app) copyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "copy [flags] SOURCE DESTINATION",
		Short: "Copy an image from any place to any other",
		Long: `Copy an image, an index or any other artifact from one place to another. What
is at the destination already is not copied again, digests stay, every byte is
verified, and the name comes last. The digest is printed.

` + transportsHelp + `

Of an index, the image for this machine's platform is copied; --all copies all of
it, --platform another one; with --sparse the index goes along, and keeps its
digest, although not all that it lists does.`,
		Example: `  tare copy docker://debian:12 oci:debian:12
  tare copy --all docker://debian:12 docker://registry.example.com/mirror/debian:12
  tare copy --sparse --platform linux/amd64 --platform linux/arm64 docker://debian:12 oci:debian:12
  tare copy docker-archive:app.tar registry.example.com/team/app:v1`,
		Args: arguments(2, 2, "SOURCE and DESTINATION"),
	}
	t := a.declareTransferFlags(cmd)
	cmd.ValidArgsFunction = a.completePlaces
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return t.copy(cmd, args[0], args[1]) }
	return cmd
}

func (a *app) pushCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "push [flags] IMAGE [DESTINATION]",
		Short: "Send an image to a registry",
		Long: `Send an image of the local store to a registry: to the one in its name, or to
DESTINATION, which may also be any other place. What is there already is not
sent again. The digest is printed.

` + transportsHelp,
		Example: `  tare push registry.example.com/team/app:v1
  tare push debian:12 registry.example.com/mirror/debian:12
  tare push --all --plain-http app registry.lan:5000/app:v1`,
		Args: arguments(1, 2, "IMAGE and DESTINATION"),
	}
	t := a.declareTransferFlags(cmd)
	cmd.ValidArgsFunction = a.completeImages(1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		to := args[len(args)-1]
		l, err := transport.Parse(to)
		if err != nil {
			return usageError{err}
		}
		if l.Kind == transport.Plain {
			l.Kind = transport.Registry
		}
		e, err := a.engine()
		if err != nil {
			return err
		}
		_, err = e.Find(cmd.Context(), args[0]) // what is on a registry only is not pushed from there
		if err := errors.Join(err, e.Close()); err != nil {
			return err
		}
		return t.copy(cmd, args[0], l.String())
	}
	return cmd
}

// transferFlags say what to copy and how to talk to registries.
type transferFlags struct {
	app                *app
	what               platformFlags
	registry           registryFlags
	srcCreds, dstCreds *string
	quiet              *bool
}

func (a *app) declareTransferFlags(cmd *cobra.Command) transferFlags {
	f := cmd.Flags()
	return transferFlags{
		app:      a,
		what:     declarePlatformFlags(cmd),
		registry: declareRegistryFlags(f),
		srcCreds: f.String("src-creds", "", "sign in to the source's registry as `USER:PASSWORD`"),
		dstCreds: f.String("dest-creds", "", "sign in to the destination's registry as `USER:PASSWORD`"),
		quiet:    f.BoolP("quiet", "q", false, "no progress, only the digest"),
	}
}

// platformFlags say what to copy of an index.
type platformFlags struct {
	platforms   *[]string
	all, sparse *bool
}

func declarePlatformFlags(cmd *cobra.Command) platformFlags {
	f := cmd.Flags()
	return platformFlags{
		platforms: f.StringArray("platform", nil, "the image for `OS/ARCH[/VARIANT]` instead of this machine's; several with --sparse"),
		all:       f.BoolP("all", "a", false, "an index with all that it lists"),
		sparse:    f.Bool("sparse", false, "keep the index although not all that it lists goes along"),
	}
}

func (t platformFlags) options() (transfer.Options, error) {
	o := transfer.Options{All: *t.all, Sparse: *t.sparse}
	var err error
	if o.Platforms, err = parsePlatforms(*t.platforms); err != nil {
		return o, err
	}
	switch {
	case o.All && len(o.Platforms) > 0:
		return o, usageError{errors.New("--all and --platform cannot be had at once")}
	case len(o.Platforms) > 1 && !o.Sparse:
		return o, usageError{errors.New("several --platform need --sparse, which keeps the index")}
	}
	return o, nil
}

func parsePlatforms(texts []string) (all []v1.Platform, err error) {
	for _, s := range texts {
		p, err := image.ParsePlatform(s)
		if err != nil {
			return nil, usageError{err}
		}
		all = append(all, p)
	}
	return all, nil
}

func (t transferFlags) copy(cmd *cobra.Command, from, to string) error {
	a := t.app
	o, err := t.what.options()
	if err != nil {
		return err
	}
	var r transfer.Result
	err = t.open(func(e *engine.Engine, source, destination remote.Routed) error {
		return a.showTransfer("Copying "+from+" to "+to, func(p transfer.Progress) (err error) {
			o.Progress = p
			r, err = e.Copy(cmd.Context(), from, to, engine.CopyOptions{Options: o, From: source, To: destination})
			return err
		})
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.stdout, r.Root.Digest)
	return err
}

// open calls use with the store and with clients for both ends.
func (t transferFlags) open(use func(e *engine.Engine, source, destination remote.Routed) error) error {
	t.app.quiet = t.app.quiet || *t.quiet
	source, err := t.registry.with(*t.srcCreds).client(t.app)
	if err != nil {
		return err
	}
	defer source.Close()
	destination, err := t.registry.with(*t.dstCreds).client(t.app)
	if err != nil {
		return err
	}
	defer destination.Close()
	e, err := t.app.engine()
	if err != nil {
		return err
	}
	defer e.Close()
	return use(e, source, destination)
}

// showTransfer shows the progress of whatever copies images.
func (a *app) showTransfer(title string, do func(transfer.Progress) error) error {
	display := a.newProgress()
	display.away = true
	display.begin(printable(title))
	start := time.Now()
	p := newPullProgress(display)
	p.then = verifying
	err := do(p)
	display.close()
	if err == nil {
		a.info("Done in %s", durationText(time.Since(start)))
	}
	return err
}

// completePlaces offers transports and the images of the store.
func (a *app) completePlaces(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	names, directive := a.completeImages(2)(cmd, args, typed)
	if len(args) < 2 {
		names = append(names, transport.Prefixes()...)
		directive |= cobra.ShellCompDirectiveNoSpace
	}
	return names, directive
}
