package cli

import (
	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/engine"
)

func (a *app) commitCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "commit [flags] CONTAINER [IMAGE]",
		Short: "Make an image of a container",
		Long: `Make an image of a container that runs or has ended: the image that it was made
from, with a layer of the files that it has changed, and the command, environment,
working directory and user that it was run with. What is mounted in it is left
out. The image's digest is printed; without IMAGE, that is its name.

Containers are kept when they have ended if tare run has no --rm. The same changes
give the same layer; SOURCE_DATE_EPOCH, or --created, makes the image the same, too.

` + transportsHelp,
		Example: `  tare run --name web debian:12 sh -c 'echo hello > /hello' && tare commit web web:v1
  tare commit -m "first" -c 'CMD ["cat", "/hello"]' -c 'ENV A=1' web web:v2
  tare commit --compression zstd web oci:web:v1`,
		Args: arguments(1, 2, "CONTAINER and IMAGE"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return a.completeContainers(1)(cmd, args, typed)
			}
			return a.completePlaces(cmd, args, typed)
		},
	}
	f := a.declareNewImageFlags(cmd)
	pause := cmd.Flags().BoolP("pause", "p", true, "stop the container's processes meanwhile, if it runs")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return f.run(func(e *engine.Engine, o engine.NewImageOptions) (engine.NewImage, error) {
			name := ""
			if len(args) == 2 {
				name = args[1]
			}
			return e.Commit(cmd.Context(), args[0], name, engine.CommitOptions{NewImageOptions: o, Pause: *pause})
		})
	}
	return cmd
}
