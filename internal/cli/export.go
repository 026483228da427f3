package cli

import (
	"errors"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/engine"
)

func (a *app) exportCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export [flags] CONTAINER|IMAGE",
		Short: "Write the files of a container or an image as one tar archive",
		Long: `Write the files of a container as it is now, or of an image, all layers in one, as
a tar archive to standard output, or to the file that -o names, which appears when
it is whole. Nothing is mounted or unpacked; for images, root is not needed. Owners,
times, extended attributes and device nodes are those of the files. What is mounted
in a container is no part of it.

A name that is a container's whole name means that container: with a tag, such as
web:latest, or with --platform it is an image's. A container may be named by the
beginning of its name where no image of the store has that name.

` + transportsHelp,
		Example: `  tare export -o web.tar web
  tare export -o rootfs.tar debian:12
  tare export docker://debian:12 | tar -t`,
		Args: arguments(1, 1, "CONTAINER or IMAGE"),
	}
	contents := a.declareContentsFlags(cmd)
	cmd.ValidArgsFunction = a.completeExport
	output := cmd.Flags().StringP("output", "o", "", "write to `FILE` instead of standard output")
	pause := cmd.Flags().BoolP("pause", "p", true, "stop the container's processes meanwhile, if it runs")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *output == "" && isTerminal(a.stdout) {
			return usageError{errors.New("an archive is nothing for a terminal: use -o FILE, or a pipe")}
		}
		find := func(e *engine.Engine, name string, o engine.FilesOptions) (*engine.Contents, error) {
			o.Pause = *pause
			return e.OpenFiles(cmd.Context(), name, o)
		}
		return contents.openBy(cmd, args, find, func(all []*engine.Contents) error {
			write := func(w io.Writer) error { return all[0].Export(cmd.Context(), w) }
			if *output == "" {
				return write(a.stdout)
			}
			return engine.WriteFile(*output, write)
		})
	}
	return cmd
}

// completeExport offers containers, images and transports.
func (a *app) completeExport(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	containers, _ := a.completeContainers(1)(cmd, args, typed)
	places, directive := a.completePlaces(cmd, args, typed)
	return slices.Concat(containers, places), directive
}
