package cli

import (
	"fmt"
	"os"
	"strings"
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
			preformat(root)
			return doc.GenManTree(root, &doc.GenManHeader{
				Title: "TARE", Section: "1", Source: "tare " + version.Version, Manual: "tare", Date: &date,
			}, args[0])
		},
	}
}

// preformat indents what is indented in help texts, tables, as far as Markdown
// wants it, by way of which the pages are made: otherwise it would be filled.
func preformat(cmd *cobra.Command) {
	cmd.Long = strings.ReplaceAll(cmd.Long, "\n  ", "\n      ")
	for _, sub := range cmd.Commands() {
		preformat(sub)
	}
}
