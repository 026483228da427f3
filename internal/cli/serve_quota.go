package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/distribution/server/service"
	"github.com/tare-oci/tare/distribution/server/storage"
)

// usageLine is what tare serve quota prints of a namespace, as JSON.
type usageLine struct {
	Namespace  string `json:"namespace"`
	UsedBytes  int64  `json:"usedBytes"`
	LimitBytes int64  `json:"limitBytes"`
}

func (a *app) serveQuotaCommand() *cobra.Command {
	var f serveFlags
	var format string
	cmd := &cobra.Command{
		Use:   "quota [flags]",
		Short: "List what a registry's namespaces take",
		Long: `List the namespaces that the configuration gives a quota and that something was
ever stored in, with what they have of it. A count that comes now and then puts
right what is a little too high in between.`,
		Example: `  tare serve quota --config /etc/tare/registry.toml
  tare serve quota --config /etc/tare/registry.toml --format json`,
		Args: arguments(0, 0, ""),
	}
	flags := f.whichStorage(cmd)
	formatFlag(cmd, &format, "table", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.serveConfig(flags, f)
		if err != nil {
			return err
		}
		s, err := service.New(c, a.stderr, a.getenv)
		if err != nil {
			return fmt.Errorf("serve quota: %w", err)
		}
		all, err := s.Usage(cmd.Context())
		if err != nil {
			return fmt.Errorf("serve quota: %w", err)
		}
		return printUsage(a.stdout, format, all)
	}
	return cmd
}

func printUsage(w io.Writer, format string, all []storage.Usage) error {
	lines := []usageLine{}
	rows := [][]string{{"NAMESPACE", "USED", "QUOTA", "PART"}}
	for _, u := range all {
		lines = append(lines, usageLine{u.Namespace, u.UsedBytes, u.LimitBytes})
		rows = append(rows, []string{u.Namespace, sizeText(u.UsedBytes), sizeText(u.LimitBytes), fmt.Sprintf("%.0f %%", 100*float64(u.UsedBytes)/float64(u.LimitBytes))})
	}
	if format == "json" {
		return printJSON(w, lines)
	}
	return table(w, rows)
}
