package cli

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/tare-oci/tare/internal/version"
)

func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "man DIR",
		Short:   "Write manual pages",
		Long:    "Write a manual page for tare and one for each of its commands into a directory.",
		Example: "  tare man /usr/local/share/man/man1",
		Args:    arguments(1, 1, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return fmt.Errorf("man: %w", err)
			}
			date := time.Unix(0, 0) // pages of one version are the same bytes everywhere
			root := cmd.Root()
			root.DisableAutoGenTag = true
			return doc.GenManTree(root, &doc.GenManHeader{
				Title: "TARE", Section: "1", Source: "tare " + version.Version, Manual: "tare", Date: &date,
			}, args[0])
		},
	}
}
