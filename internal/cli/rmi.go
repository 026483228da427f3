package cli

import (
	"context"
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
beginning of its digest or ID, if it has no other names than one, and one without a
name has to be.`,
		Example: `  tare rmi debian:12
  tare rmi $(tare images -q) && tare gc`,
		Args:              arguments(1, -1, "IMAGE..."),
		ValidArgsFunction: a.completeImages(-1),
	}
	force := cmd.Flags().BoolP("force", "f", false, "it is no error that an image is not here, or has other names than the digest given: all go")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		e, err := a.engine()
		if err != nil {
			return err
		}
		defer e.Close()
		var failed []error
		for _, name := range args {
			removed, err := remove(cmd.Context(), e, name, *force)
			for _, n := range removed {
				fmt.Fprintln(a.stdout, printable(n))
			}
			switch {
			case err == nil:
			case !*force || !errors.Is(err, engine.ErrNoImage):
				failed = append(failed, err)
			}
		}
		return errors.Join(failed...)
	}
	return cmd
}

func remove(ctx context.Context, e *engine.Engine, name string, all bool) ([]string, error) {
	if all {
		return e.RemoveAll(ctx, name)
	}
	removed, err := e.Remove(ctx, name)
	if err != nil {
		return nil, err
	}
	return []string{removed}, nil
}
