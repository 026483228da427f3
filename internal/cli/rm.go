package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/engine"
)

func (a *app) rmCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rm [flags] CONTAINER...",
		Short: "Remove containers",
		Long: `Remove containers that have ended, with all that they have written; with -f also
those that run, which are killed. A container is named by its name, or by the
beginning of its ID.`,
		Example: `  tare rm web
  tare rm -f $(tare ps -aq)`,
		Args:              arguments(1, -1, "CONTAINER..."),
		ValidArgsFunction: a.completeContainers(-1),
	}
	force := cmd.Flags().BoolP("force", "f", false, "kill those that run; it is no error that a container is not here")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		e, err := a.engine()
		if err != nil {
			return err
		}
		defer e.Close()
		var failed []error
		for _, name := range args {
			removed, err := e.RemoveContainer(cmd.Context(), name, *force)
			switch {
			case err == nil:
				fmt.Fprintln(a.stdout, shortID(removed, false))
			case !*force || !errors.Is(err, engine.ErrNoContainer):
				failed = append(failed, err)
			}
		}
		return errors.Join(failed...)
	}
	return cmd
}
