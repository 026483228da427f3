package cli

import (
	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/engine"
)

func (a *app) repackCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "repack [flags] BUNDLE IMAGE",
		Short: "Make an image of a bundle whose files were changed",
		Long: `Make an image of a bundle that tare unpack has made: the image that it came from,
with a layer of what has changed in rootfs since. Only files that were touched are
read, as the bundle has a record of the others. The image's digest is printed.

What has changed in the image's volumes is left out, unless --no-mask-volumes is
given. The next repack finds the same changes again, and adds them to the image
that the bundle came from; with --refresh-bundle it goes on from this one.

` + transportsHelp,
		Example: `  tare unpack debian:12 bundle && cp app bundle/rootfs/usr/bin && tare repack bundle app:v1
  tare repack --refresh-bundle -m "the app" -c 'ENTRYPOINT ["app"]' bundle oci:layout:v1
  SOURCE_DATE_EPOCH=1700000000 tare repack bundle app:v1`,
		Args: arguments(2, 2, "BUNDLE and IMAGE"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return nil, cobra.ShellCompDirectiveFilterDirs
			}
			return a.completePlaces(cmd, args, typed)
		},
	}
	f := a.declareNewImageFlags(cmd)
	refresh := cmd.Flags().Bool("refresh-bundle", false, "make the bundle one of the new image")
	volumes := cmd.Flags().Bool("no-mask-volumes", false, "take what has changed in the image's volumes, too")
	// As umoci calls them.
	for _, h := range []struct {
		name string
		to   *string
		help string
	}{
		{"author", &f.author, "--author by umoci's name: `text`"},
		{"comment", &f.message, "--message by umoci's name: `text`"},
		{"created", &f.created, "--created by umoci's name: `time`"},
		{"created_by", &f.createdBy, "what the history says that has made the layer: `text`"},
	} {
		cmd.Flags().StringVar(h.to, "history."+h.name, "", h.help)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return f.run(func(e *engine.Engine, o engine.NewImageOptions) (engine.NewImage, error) {
			o.Changes.KeepVolumes = *volumes
			if o.History.CreatedBy == "" {
				o.History.CreatedBy = "tare repack"
			}
			return e.Repack(cmd.Context(), args[0], args[1], engine.RepackOptions{NewImageOptions: o, Refresh: *refresh})
		})
	}
	return cmd
}
