package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/engine"
)

func (a *app) rmiCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rmi [flags] IMAGE...",
		Short: "Remove images",
		Long: `Take the names of images away. What no name leads to any more is removed by
tare gc; containers that run are not disturbed. An image may be named by the
beginning of its digest or ID, and one without a name has to be.`,
		Example: `  tare rmi debian:12
  tare rmi $(tare images -q) && tare gc`,
		Args:              arguments(1, -1, "IMAGE..."),
		ValidArgsFunction: a.completeImages(-1),
	}
	force := cmd.Flags().BoolP("force", "f", false, "it is no error that an image is not here")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		e, err := a.engine()
		if err != nil {
			return err
		}
		defer e.Close()
		var failed []error
		for _, name := range args {
			removed, err := e.Remove(cmd.Context(), name)
			switch {
			case err == nil:
				fmt.Fprintln(a.stdout, printable(removed))
			case !*force || !errors.Is(err, engine.ErrNoImage):
				failed = append(failed, err)
			}
		}
		return errors.Join(failed...)
	}
	return cmd
}
