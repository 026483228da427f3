package cli

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/mutate"
	"github.com/tare-oci/tare/image/tree"
)

func (a *app) diffCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "diff [flags] CONTAINER|BUNDLE | IMAGE IMAGE",
		Short: "Show what has changed in a container or bundle, or differs between images",
		Long: `Show which files a container has added (A), changed (C) and deleted (D), or what
has changed in a bundle since tare unpack has made it.

Of two images, show what differs between two images, without unpacking them: what of their
configuration, and which files are added (A), changed (C) and deleted (D). Files
are compared by content and attributes; that only a time is another counts with
--times.

` + transportsHelp,
		Example: `  tare diff web
  tare diff ./bundle
  tare diff debian:12 debian:12-slim
  tare diff app:v1 docker://registry.example.com/team/app:v2
  tare diff --format json app:v1 app:v2 | jq -r '.files[] | select(.kind == "A") | .path'`,
		Args: arguments(1, 2, "a CONTAINER, a BUNDLE, or IMAGE and IMAGE"),
	}
	times := cmd.Flags().Bool("times", false, "files that only have another time, too")
	exitCode := cmd.Flags().Bool("exit-code", false, "end with status 1 if anything differs")
	formatFlag(cmd, &format, "text", "json")
	flags := a.declareContentsFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			n, err := a.treeDiff(cmd, args[0], format)
			if err == nil && *exitCode && n > 0 {
				err = exitError{status: 1}
			}
			return err
		}
		return flags.open(cmd, args, func(c []*engine.Contents) error {
			changes, err := engine.CompareImages(cmd.Context(), c[0], c[1])
			if err != nil {
				return err
			}
			if !*times {
				changes = slices.DeleteFunc(changes, func(c tree.Change) bool { return c.Kind == tree.Changed && c.Fields == tree.FieldTime })
			}
			d := imageDiff{Config: configChanges(c[0].Image, c[1].Image), Files: changes}
			if err := d.print(a, format); err != nil {
				return err
			}
			if *exitCode && len(d.Config)+len(d.Files) > 0 {
				return exitError{status: 1}
			}
			return nil
		})
	}
	return cmd
}

// treeDiff prints what has changed in a container or bundle, and says how much.
func (a *app) treeDiff(cmd *cobra.Command, name, format string) (int, error) {
	e, err := a.engine()
	if err != nil {
		return 0, err
	}
	defer e.Close()
	changes, err := e.Changes(cmd.Context(), name, engine.ChangeOptions{})
	if err != nil {
		return 0, err
	}
	files := []treeChange{}
	for _, c := range changes {
		if c.Name != "." { // docker does not list it either
			files = append(files, treeChange{c.Kind.String(), "/" + c.Name})
		}
	}
	if format == "json" {
		return len(files), printJSON(a.stdout, files)
	}
	out := bufio.NewWriter(a.stdout)
	for _, c := range files {
		fmt.Fprintf(out, "%s %s\n", c.Kind, printable(c.Path))
	}
	return len(files), out.Flush()
}

// treeChange is a changed file, for machines.
type treeChange struct {
	Kind string `json:"kind"`
	Path string `json:"path"`
}

// imageDiff is what differs between two images.
type imageDiff struct {
	Config []fieldChange
	Files  []tree.Change
}

// fieldChange is a field of the configuration that differs.
type fieldChange struct {
	Field   string   `json:"field"`
	Removed []string `json:"removed"`
	Added   []string `json:"added"`
}

func configChanges(from, to *image.Image) []fieldChange {
	changes := []fieldChange{}
	for _, f := range mutate.Fields() {
		was, is := f.Values(&from.Config), f.Values(&to.Config)
		if f.Shape == mutate.Words {
			was, is = oneLine(was), oneLine(is)
		}
		c := fieldChange{Field: f.Name, Removed: without(was, is), Added: without(is, was)}
		if len(c.Removed)+len(c.Added) > 0 {
			changes = append(changes, c)
		}
	}
	return changes
}

// oneLine makes an argument vector one value.
func oneLine(words []string) []string {
	if len(words) == 0 {
		return nil
	}
	return []string{quoted(words)}
}

// without are the values that the others lack.
func without(values, others []string) []string {
	return slices.DeleteFunc(append([]string{}, values...), func(v string) bool { return slices.Contains(others, v) })
}

func (d imageDiff) print(a *app, format string) error {
	if format == "json" {
		files := []changeInfo{}
		for _, c := range d.Files {
			files = append(files, changeInfoOf(c))
		}
		return printJSON(a.stdout, struct {
			Config []fieldChange `json:"config"`
			Files  []changeInfo  `json:"files"`
		}{d.Config, files})
	}
	out := bufio.NewWriter(a.stdout)
	d.printConfig(out)
	if len(d.Config) > 0 && len(d.Files) > 0 {
		fmt.Fprintln(out)
	}
	printChanges(out, d.Files)
	return out.Flush()
}

func (d imageDiff) printConfig(w io.Writer) {
	for _, c := range d.Config {
		name := strings.TrimPrefix(c.Field, "config.")
		for _, v := range c.Removed {
			fmt.Fprintf(w, "- %s: %s\n", name, printable(v))
		}
		for _, v := range c.Added {
			fmt.Fprintf(w, "+ %s: %s\n", name, printable(v))
		}
	}
}
