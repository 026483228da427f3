package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/engine"
)

func (a *app) gcCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "gc [flags]",
		Short: "Remove what no image needs",
		Long: `Remove what no image and no container needs: layers, packed and unpacked, and
what killed processes have left. It waits until running pulls have ended.
Beginnings of layers that were cut off less than a day ago are kept, so that the
next pull can go on with them.`,
		Example: `  tare gc
  tare gc --dry-run`,
		Args: arguments(0, 0, ""),
	}
	dryRun := cmd.Flags().BoolP("dry-run", "n", false, "only tell what would be removed")
	all := cmd.Flags().BoolP("all", "a", false, "remove the beginnings of layers, too")
	formatFlag(cmd, &format, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		e, err := a.engine()
		if err != nil {
			return err
		}
		defer e.Close()
		o := engine.GCOptions{DryRun: *dryRun, PartialAge: 24 * time.Hour}
		if *all {
			o.PartialAge = 0
		}
		report, err := e.GC(cmd.Context(), o)
		if err != nil {
			return err
		}
		if format == "json" {
			return printJSON(a.stdout, gcReport(report))
		}
		verb := "Removed"
		if *dryRun {
			verb = "Would remove"
		}
		_, err = fmt.Fprintf(a.stdout, "%s %s (%s), %s and %s.\n", verb, plural(len(report.Blobs), "blob"), sizeText(report.RemovedBytes),
			plural(len(report.Snapshots), "unpacked layer"), plural(len(report.Containers)+report.Partials, "leftover"))
		return err
	}
	return cmd
}

// gcReport is engine.GCReport for machines.
type gcReport engine.GCReport

// MarshalJSON gives the lists names of JSON's style, and none that is null.
func (r gcReport) MarshalJSON() ([]byte, error) {
	return marshal(map[string]any{
		"containers": list(r.Containers), "snapshots": list(r.Snapshots), "blobs": list(r.Blobs),
		"partials": r.Partials, "removedBytes": r.RemovedBytes,
	})
}
