package cli

import (
	"bufio"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

func (a *app) explainCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "explain [flags] BUNDLE|IMAGE [-- COMMAND [ARG...]]",
		Short: "Show, step by step, what running would do",
		Long: `Show the plan of a container before anything runs: every step that its first
process takes, and the field of config.json that each comes from. With -v the
system calls too. tare-runtime does exactly this, and nothing else.

A BUNDLE is a directory with a config.json. For an IMAGE the flags of tare run
change the plan as they would change the container.`,
		Example: `  tare explain bundle
  tare explain -v bundle | less
  tare explain --read-only --user 1000 alpine -- ls -l
  tare explain --format json bundle | jq '.steps[].op'`,
		Args: arguments(1, -1, "BUNDLE or IMAGE"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			names, _ := a.completeImages(1)(cmd, args, typed)
			return names, cobra.ShellCompDirectiveDefault
		},
	}
	calls := cmd.Flags().BoolP("verbose", "v", false, "show the system calls of each step")
	formatFlag(cmd, &format, "text", "json")
	f := declareRunFlags(cmd, false)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o, err := f.options(a, args)
		if err != nil {
			return err
		}
		e, err := a.engine()
		if err != nil {
			return err
		}
		defer e.Close()
		if !isBundle(args[0]) {
			if err := a.provide(cmd.Context(), e, &o, f); err != nil {
				return err
			}
		}
		plan, err := e.Explain(cmd.Context(), args[0], o)
		if err != nil {
			return err
		}
		if format == "json" {
			return printJSON(a.stdout, plan)
		}
		out := bufio.NewWriter(a.stdout)
		if err := plan.Print(out, *calls); err != nil {
			return err
		}
		return out.Flush()
	}
	return cmd
}

// isBundle tells a bundle from an image's name.
func isBundle(path string) bool {
	_, err := os.Stat(filepath.Join(path, "config.json"))
	return err == nil
}
