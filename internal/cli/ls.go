package cli

import (
	"bufio"
	"fmt"
	"io"
	"path"

	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/image/layer/tarstream"
	"github.com/tare-oci/tare/image/tree"
)

func (a *app) lsCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "ls [flags] IMAGE [PATH...]",
		Short: "List the files of an image",
		Long: `List the files of an image as a container would see them, without unpacking it:
from the store, or from wherever else it is, also from a registry. All names are
listed, those that begin with a dot too. Times are UTC.

` + transportsHelp,
		Example: `  tare ls debian:12
  tare ls -l debian:12 /etc
  tare ls -R docker://registry.example.com/team/app:v1 /srv
  tare ls --format json debian:12 /usr/bin | jq -r '.[] | select(.mode[0:1] == "4") | .path'`,
		Args: arguments(1, -1, "IMAGE and PATHs"),
	}
	long := cmd.Flags().BoolP("long", "l", false, "with mode, links, owner, size and time")
	recursive := cmd.Flags().BoolP("recursive", "R", false, "and what is in directories, and so on")
	directory := cmd.Flags().BoolP("directory", "d", false, "directories themselves, not what is in them")
	formatFlag(cmd, &format, "text", "json")
	flags := a.declareContentsFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		paths := args[1:]
		if len(paths) == 0 {
			paths = []string{"/"}
		}
		return flags.open(cmd, args[:1], func(c []*engine.Contents) error {
			t, err := c[0].Tree(cmd.Context(), false)
			if err != nil {
				return err
			}
			l := listing{tree: t, long: *long, recursive: *recursive, directory: *directory}
			if err := l.collect(paths); err != nil {
				return err
			}
			if format == "json" {
				return printJSON(a.stdout, l.infos())
			}
			out := bufio.NewWriter(a.stdout)
			l.print(out)
			return out.Flush()
		})
	}
	return cmd
}

// listing is what ls prints: files named, then directories with a heading each.
type listing struct {
	tree                       *tree.Tree
	long, recursive, directory bool

	files  []listed
	groups []group
	links  map[*tree.File]int
}

// listed is a file and what to call it.
type listed struct {
	name string
	node *tree.Node
}

type group struct {
	heading string
	files   []listed
}

// collect finds what was asked for. Like ls, it follows a symbolic link that is
// named, unless it shows links themselves.
func (l *listing) collect(paths []string) error {
	for _, p := range paths {
		n, err := l.tree.Lookup(p, !l.long && !l.directory)
		if err != nil {
			return fmt.Errorf("%s: %w", printable(p), err)
		}
		if !n.IsDir() || l.directory {
			l.files = append(l.files, listed{p, n})
			continue
		}
		l.group(p, n)
	}
	return nil
}

func (l *listing) group(name string, dir *tree.Node) {
	g := group{heading: name}
	children := dir.Children()
	for _, c := range children {
		g.files = append(g.files, listed{c.Base(), c})
	}
	l.groups = append(l.groups, g)
	for _, c := range children {
		if l.recursive && c.IsDir() {
			l.group(path.Join(name, c.Base()), c)
		}
	}
}

func (l *listing) infos() []fileInfo {
	all := []fileInfo{}
	add := func(files []listed) {
		for _, f := range files {
			all = append(all, infoOf(absolute(f.node.Name()), f.node.File()))
		}
	}
	add(l.files)
	for _, g := range l.groups {
		add(g.files)
	}
	return all
}

func (l *listing) print(w io.Writer) {
	l.printFiles(w, l.files)
	for i, g := range l.groups {
		if len(l.files) > 0 || i > 0 {
			fmt.Fprintln(w)
		}
		if len(l.files) > 0 || len(l.groups) > 1 {
			fmt.Fprintf(w, "%s:\n", printable(g.heading))
		}
		l.printFiles(w, g.files)
	}
}

func (l *listing) printFiles(w io.Writer, files []listed) {
	if !l.long {
		for _, f := range files {
			fmt.Fprintln(w, printable(f.name))
		}
		return
	}
	rows := make([][6]string, len(files))
	var widths [6]int
	for i, f := range files {
		rows[i] = l.row(f.node)
		for k, text := range rows[i] {
			widths[k] = max(widths[k], len(text))
		}
	}
	for i, f := range files {
		r := rows[i]
		fmt.Fprintf(w, "%s %*s %*s %*s %*s %s %s%s\n", r[0], widths[1], r[1], widths[2], r[2], widths[3], r[3], widths[4], r[4], r[5],
			printable(f.name), linkTarget(f.node.File()))
	}
}

func linkTarget(f *tree.File) string {
	if f.Type != tarstream.TypeSymlink {
		return ""
	}
	return " -> " + printable(f.Linkname)
}

// row is mode, links, owner, group, size or device number, and time.
func (l *listing) row(n *tree.Node) [6]string {
	f := n.File()
	size := fmt.Sprint(f.SizeBytes)
	switch f.Type {
	case tarstream.TypeSymlink:
		size = fmt.Sprint(len(f.Linkname))
	case tarstream.TypeChar, tarstream.TypeBlock:
		size = fmt.Sprintf("%d, %d", f.Major, f.Minor)
	}
	return [6]string{modeText(f), fmt.Sprint(l.linkCount(n)), fmt.Sprint(f.UID), fmt.Sprint(f.GID), size, modTime(f).Format("2006-01-02 15:04")}
}

// linkCount counts as file systems do: names of a file, and for a directory
// itself, its name and those of it in its subdirectories.
func (l *listing) linkCount(n *tree.Node) int {
	if n.IsDir() {
		count := 2
		for _, c := range n.Children() {
			if c.IsDir() {
				count++
			}
		}
		return count
	}
	if l.links == nil {
		l.links = map[*tree.File]int{}
		for n := range l.tree.Root().All() {
			l.links[n.File()]++
		}
	}
	return l.links[n.File()]
}
