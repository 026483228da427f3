package cli

import (
	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/transfer"
)

func (a *app) newCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "new [flags] IMAGE",
		Short: "Make an image with nothing in it",
		Long: `Make an image without layers and with an empty configuration, for a platform: a
start for tare mutate --append and tare config. What has the name is replaced.

` + transportsHelp,
		Example: `  tare new scratch
  tare new --platform linux/arm64 oci:layout:v1
  tare mutate --append rootfs/ scratch && tare config --cmd /init scratch`,
		Args: arguments(1, 1, "IMAGE"),
	}
	flags := a.declareEditFlags(cmd)
	for _, none := range []string{"tag", "all"} {
		_ = cmd.Flags().MarkHidden(none) // they mean nothing here
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		created, err := flags.time()
		if err != nil {
			return err
		}
		return flags.with(cmd, "Making "+args[0], func(e *engine.Engine, o engine.EditOptions) (transfer.Result, error) {
			platform := image.HostPlatform()
			if o.Platform != nil {
				platform = *o.Platform
			}
			return e.NewImage(cmd.Context(), args[0], platform, created, o)
		})
	}
	return cmd
}
