package cli

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// groupAnnotation marks the flags that a verb's help shows under one heading.
const groupAnnotation = "tare.group"

// flagGroup declares a group of a verb's flags: declare adds them to the set.
func flagGroup(cmd *cobra.Command, title string, declare func(*pflag.FlagSet)) {
	set := pflag.NewFlagSet(title, pflag.ContinueOnError)
	set.SortFlags = false
	declare(set)
	set.VisitAll(func(f *pflag.Flag) {
		f.Annotations = map[string][]string{groupAnnotation: {title}}
	})
	cmd.Flags().AddFlagSet(set)
}

// setHelp makes every verb's help: what it does, how it is called, examples,
// its flags in groups.
func (a *app) setHelp(root *cobra.Command) {
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) {
		text := cmd.Long
		if text == "" {
			text = cmd.Short + "."
		}
		fmt.Fprintf(a.stdout, "%s\n\n%s", strings.TrimSpace(text), a.usage(cmd))
	})
	root.SetUsageFunc(func(cmd *cobra.Command) error {
		_, err := fmt.Fprint(a.stdout, a.usage(cmd))
		return err
	})
}

func (a *app) usage(cmd *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage:\n  %s\n", cmd.UseLine())
	if cmd.HasExample() {
		fmt.Fprintf(&b, "\nExamples:\n%s\n", strings.TrimRight(cmd.Example, "\n"))
	}
	for _, g := range cmd.Groups() {
		fmt.Fprintf(&b, "\n%s\n", g.Title)
		for _, verb := range cmd.Commands() {
			if verb.GroupID == g.ID && (verb.IsAvailableCommand() || verb.Name() == "help") {
				fmt.Fprintf(&b, "  %-*s   %s\n", cmd.Commands()[0].NamePadding(), verb.Name(), verb.Short)
			}
		}
	}
	width := helpWidth()
	for _, g := range flagGroups(cmd) {
		fmt.Fprintf(&b, "\n%s:\n%s", g.title, g.flags.FlagUsagesWrapped(width))
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\n%s COMMAND --help tells more about a command.\n", cmd.CommandPath())
	}
	return b.String()
}

type flags struct {
	title string
	flags *pflag.FlagSet
}

// flagGroups sorts a verb's flags into their groups, in the order in which
// these were declared.
func flagGroups(cmd *cobra.Command) []flags {
	var groups []flags
	add := func(title string, f *pflag.Flag) {
		for _, g := range groups {
			if g.title == title {
				g.flags.AddFlag(f)
				return
			}
		}
		set := pflag.NewFlagSet(title, pflag.ContinueOnError)
		set.SortFlags = false
		set.AddFlag(f)
		groups = append(groups, flags{title, set})
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden || cmd.PersistentFlags().Lookup(f.Name) != nil || cmd.InheritedFlags().Lookup(f.Name) != nil {
			return
		}
		title := "Flags"
		if g := f.Annotations[groupAnnotation]; len(g) > 0 {
			title = g[0]
		}
		if f.Name != "help" && f.Name != "version" {
			add(title, f)
		}
	})
	if !cmd.HasParent() {
		cmd.PersistentFlags().VisitAll(func(f *pflag.Flag) { add("Global flags", f) })
	}
	cmd.InheritedFlags().VisitAll(func(f *pflag.Flag) { add("Global flags", f) })
	for _, name := range []string{"help", "version"} {
		if f := cmd.Flags().Lookup(name); f != nil {
			add("Global flags", f)
		}
	}
	return groups
}

// helpWidth is that of the terminal, within what is good to read.
func helpWidth() int {
	columns, _, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil {
		columns = 80
	}
	return min(max(columns, 60), 110)
}
