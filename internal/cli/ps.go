package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/engine"
)

func (a *app) psCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "ps [flags]",
		Short: "List the containers that run, or all that are here",
		Example: `  tare ps
  tare ps -a
  tare rm $(tare ps -aq)`,
		Args: arguments(0, 0, ""),
	}
	all := cmd.Flags().BoolP("all", "a", false, "also those that have ended")
	quiet := cmd.Flags().BoolP("quiet", "q", false, "print the names only")
	full := cmd.Flags().Bool("no-trunc", false, "print whole names and commands")
	formatFlag(cmd, &format, "table", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		e, err := a.engine()
		if err != nil {
			return err
		}
		defer e.Close()
		containers, err := e.Containers(cmd.Context())
		if err != nil {
			return err
		}
		containers = slices.DeleteFunc(containers, func(c engine.Container) bool { return !*all && !c.Running })
		switch {
		case *quiet:
			for _, c := range containers {
				fmt.Fprintln(a.stdout, shortID(c.ID, *full))
			}
			return nil
		case format == "json":
			summaries := make([]containerSummary, len(containers))
			for i, c := range containers {
				summaries[i] = containerSummary{c.ID, c.Image, list(c.Command), c.Created, c.Running, c.Exit}
			}
			return printJSON(a.stdout, summaries)
		}
		return table(a.stdout, containerRows(containers, *full, time.Now()))
	}
	return cmd
}

// containerSummary is a container of the list, for machines.
type containerSummary struct {
	ID      string       `json:"id"`
	Image   string       `json:"image"`
	Command []string     `json:"command"`
	Created time.Time    `json:"created"`
	Running bool         `json:"running"`
	Exit    *engine.Exit `json:"exit,omitempty"`
}

func containerRows(containers []engine.Container, full bool, now time.Time) [][]string {
	rows := [][]string{{"CONTAINER", "IMAGE", "COMMAND", "CREATED", "STATUS"}}
	for _, c := range containers {
		command := printable(strings.Join(c.Command, " "))
		const most = 30
		if !full && len([]rune(command)) > most {
			command = string([]rune(command)[:most-1]) + "…"
		}
		if command == "" {
			command = "-"
		}
		image := engine.Image{Name: c.Image}.FamiliarName()
		rows = append(rows, []string{shortID(c.ID, full), printable(image), command, agoText(c.Created, now), statusText(c, now)})
	}
	return rows
}

func statusText(c engine.Container, now time.Time) string {
	if c.Exit == nil {
		return "running"
	}
	return fmt.Sprintf("exited (%d) %s", c.Exit.Status, agoText(c.Exit.Finished, now))
}

// shortID is enough of a random ID; one that somebody has chosen is shown whole.
func shortID(id string, full bool) string {
	const randomLen, shown = 64, 12
	if !full && len(id) == randomLen && strings.Trim(id, "0123456789abcdef") == "" {
		return id[:shown]
	}
	return id
}

// completeContainers offers the names of containers, up to max of them.
func (a *app) completeContainers(max int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if max >= 0 && len(args) >= max {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		e, err := a.engine()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		defer e.Close()
		containers, err := e.Containers(cmd.Context())
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var names []string
		for _, c := range containers {
			if name := shortID(c.ID, false); strings.HasPrefix(name, typed) {
				names = append(names, name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
