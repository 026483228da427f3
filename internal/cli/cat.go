package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/engine"
)

func (a *app) catCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cat [flags] IMAGE PATH...",
		Short: "Print files of an image",
		Long: `Print files of an image as a container would read them, without unpacking it.
Symbolic links are followed inside the image and lead nowhere else. A file is
printed once it is verified; one of more than 1 GiB as it is read, and what is
wrong with it is an error at the end.

` + transportsHelp,
		Example: `  tare cat debian:12 /etc/os-release
  tare cat docker://registry.example.com/team/app:v1 /srv/app | sha256sum`,
		Args: arguments(2, -1, "IMAGE and PATHs"),
	}
	flags := a.declareContentsFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return flags.open(cmd, args[:1], func(c []*engine.Contents) error {
			t, err := c[0].Tree(cmd.Context(), true)
			if err != nil {
				return err
			}
			for _, p := range args[1:] {
				n, err := t.Lookup(p, true)
				if err == nil {
					err = c[0].Cat(cmd.Context(), t, n.File(), a.stdout)
				}
				if err != nil {
					return fmt.Errorf("%s: %w", printable(p), err)
				}
			}
			return nil
		})
	}
	return cmd
}
