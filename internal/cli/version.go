package cli

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/internal/version"
)

func (a *app) versionCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "version [flags]",
		Short: "Print the version, and those of the specifications",
		Args:  arguments(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			v := versions{
				Version: version.Version, Commit: version.Commit(), Go: version.Go(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
				RuntimeSpec: version.RuntimeSpec, ImageSpec: version.ImageSpec, DistributionSpec: version.DistributionSpec,
			}
			if format == "json" {
				return printJSON(a.stdout, v)
			}
			return table(a.stdout, [][]string{
				{"tare", v.Version}, {"commit", v.Commit}, {"go", v.Go}, {"platform", v.Platform},
				{"runtime spec", v.RuntimeSpec}, {"image spec", v.ImageSpec}, {"distribution spec", v.DistributionSpec},
			})
		},
	}
	formatFlag(cmd, &format, "text", "json")
	return cmd
}

type versions struct {
	Version          string `json:"version"`
	Commit           string `json:"commit"`
	Go               string `json:"go"`
	Platform         string `json:"platform"`
	RuntimeSpec      string `json:"runtimeSpec"`
	ImageSpec        string `json:"imageSpec"`
	DistributionSpec string `json:"distributionSpec"`
}

// formatFlag declares --format with the formats that a verb has, the first
// being the default, and checks and completes it.
func formatFlag(cmd *cobra.Command, format *string, known ...string) {
	*format = known[0]
	cmd.Flags().Var(&choice{format, known}, "format", "output `format`: "+orList(known))
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(known, cobra.ShellCompDirectiveNoFileComp)) // fails only for unknown flags
}

// choice is a flag's value out of a few.
type choice struct {
	value *string
	known []string
}

func (c *choice) String() string { return *c.value }
func (c *choice) Type() string   { return "string" }

// Set implements pflag.Value.
func (c *choice) Set(s string) error {
	for _, k := range c.known {
		if s == k {
			*c.value = s
			return nil
		}
	}
	return fmt.Errorf("want %s", orList(c.known))
}

func orList(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	list := words[0]
	for _, w := range words[1 : len(words)-1] {
		list += ", " + w
	}
	return list + " or " + words[len(words)-1]
}
