package cli

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/image/layer/tarstream"
	"github.com/tare-oci/tare/image/tree"
)

func (a *app) layersCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "layers [flags] IMAGE [NUMBER]",
		Short: "Show what each layer of an image adds, changes and deletes",
		Long: `Show what each layer of an image does to those below it: how many files it adds,
changes and deletes, and their sizes. With a layer's NUMBER, or with --files, the
files are listed: A added, C changed, D deleted, as docker diff has them. A file
that a layer brings once more just as it was is a change of nothing but takes its
space; directories that are only named again are left out.

` + transportsHelp,
		Example: `  tare layers debian:12
  tare layers debian:12 2
  tare layers --files docker://registry.example.com/team/app:v1`,
		Args: arguments(1, 2, "IMAGE and NUMBER"),
	}
	files := cmd.Flags().Bool("files", false, "list the files of all layers")
	full := cmd.Flags().Bool("no-trunc", false, "whole digests and commands")
	formatFlag(cmd, &format, "text", "json")
	flags := a.declareContentsFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		number := 0
		if len(args) == 2 {
			var err error
			if number, err = strconv.Atoi(args[1]); err != nil || number < 1 {
				return usageError{fmt.Errorf("%q: want the number of a layer, the lowest being 1", args[1])}
			}
		}
		return flags.open(cmd, args[:1], func(c []*engine.Contents) error {
			if n := len(c[0].Image.Manifest.Layers); number > n {
				return fmt.Errorf("image %s: no layer %d: it has %s", printable(args[0]), number, plural(n, "layer"))
			}
			out := bufio.NewWriter(a.stdout)
			s := layerSummaries{out: out, files: *files || number > 0, only: number, full: *full, json: format == "json"}
			if err := c[0].Layers(cmd.Context(), s.add); err != nil {
				return err
			}
			return errors.Join(s.finish(), out.Flush())
		})
	}
	return cmd
}

// layerSummary is a layer, for machines.
type layerSummary struct {
	Number           int           `json:"number"`
	Digest           digest.Digest `json:"digest"`
	MediaType        string        `json:"mediaType"`
	BlobBytes        int64         `json:"blobBytes"`
	UncompressedSize int64         `json:"uncompressedBytes"`
	CreatedBy        string        `json:"createdBy,omitempty"`
	Added            tally         `json:"added"`
	Changed          tally         `json:"changed"`
	Deleted          tally         `json:"deleted"`
	Files            []changeInfo  `json:"files,omitempty"`
}

// tally counts files, and the bytes of the regular ones: of what is there after
// a change, or was there before a deletion.
type tally struct {
	Files     int   `json:"files"`
	SizeBytes int64 `json:"sizeBytes"`
}

func (t *tally) count(f *tree.File) {
	t.Files++
	t.SizeBytes += f.SizeBytes
}

// changeInfo is a changed file, for machines.
type changeInfo struct {
	Kind   string    `json:"kind"`
	Path   string    `json:"path"`
	Fields []string  `json:"fields,omitempty"`
	Before *fileInfo `json:"before,omitempty"`
	After  *fileInfo `json:"after,omitempty"`
}

func changeInfoOf(c tree.Change) changeInfo {
	i := changeInfo{Kind: c.Kind.String(), Path: absolute(c.Name), Fields: c.Fields.Names()}
	if c.Before != nil {
		f := infoOf(i.Path, c.Before)
		i.Before = &f
	}
	if c.After != nil {
		f := infoOf(i.Path, c.After)
		i.After = &f
	}
	return i
}

// absolute is a name of a tree as a path.
func absolute(name string) string { return "/" + strings.TrimPrefix(name, ".") }

// layerSummaries prints layers as they come.
type layerSummaries struct {
	out               io.Writer
	files, full, json bool
	only              int // this layer; 0 for all
	rows              [][]string
	list              []layerSummary
}

// counts says whether a change is one: a directory that is named again, as most
// layers do with those their files are in, is not.
func counts(c tree.Change) bool {
	return c.Kind != tree.Changed || c.After.Type != tarstream.TypeDir || c.Fields&^tree.FieldTime != 0
}

func (s *layerSummaries) add(l engine.LayerContents) error {
	if s.only != 0 && s.only != l.Number {
		return nil
	}
	sum := layerSummary{Number: l.Number, Digest: l.Desc.Digest, MediaType: l.Desc.MediaType, BlobBytes: l.Desc.Size,
		UncompressedSize: l.SizeBytes, CreatedBy: l.History.CreatedBy}
	var changes []tree.Change
	for _, c := range l.Changes {
		if !counts(c) {
			continue
		}
		changes = append(changes, c)
		switch c.Kind {
		case tree.Added:
			sum.Added.count(c.After)
		case tree.Changed:
			sum.Changed.count(c.After)
		case tree.Deleted:
			sum.Deleted.count(c.Before)
		}
	}
	if s.json {
		if s.files {
			for _, c := range changes {
				sum.Files = append(sum.Files, changeInfoOf(c))
			}
		}
		s.list = append(s.list, sum)
		return nil
	}
	if s.files {
		s.printFiles(sum, changes)
		return nil
	}
	s.rows = append(s.rows, s.row(sum))
	return nil
}

func (s *layerSummaries) row(l layerSummary) []string {
	name, by := shortDigest(l.Digest), shorten(printable(l.CreatedBy), 60)
	if s.full {
		name, by = string(l.Digest), printable(l.CreatedBy)
	}
	part := func(t tally) string {
		if t.Files == 0 {
			return "-"
		}
		return fmt.Sprintf("%d (%s)", t.Files, sizeText(t.SizeBytes))
	}
	return []string{fmt.Sprint(l.Number), name, sizeText(l.BlobBytes), part(l.Added), part(l.Changed), part(l.Deleted), cmp.Or(by, "-")}
}

func (s *layerSummaries) printFiles(l layerSummary, changes []tree.Change) {
	if s.only == 0 {
		if l.Number > 1 {
			fmt.Fprintln(s.out)
		}
		fmt.Fprintf(s.out, "layer %d  %s  %s\n", l.Number, shortDigest(l.Digest), shorten(printable(l.CreatedBy), 80))
	}
	printChanges(s.out, changes)
}

func (s *layerSummaries) finish() error {
	switch {
	case s.json:
		return printJSON(s.out, list(s.list))
	case s.files:
		return nil
	}
	return table(s.out, append([][]string{{"LAYER", "DIGEST", "SIZE", "ADDED", "CHANGED", "DELETED", "CREATED BY"}}, s.rows...))
}

// printChanges prints a line for each: kind, size, path, and what has changed.
func printChanges(w io.Writer, changes []tree.Change) {
	for _, c := range changes {
		size, what := "", ""
		f := c.After
		if f == nil {
			f = c.Before
		}
		if f.Type == tarstream.TypeReg {
			size = sizeText(f.SizeBytes)
		}
		if c.Kind == tree.Changed {
			what = "  (" + cmp.Or(strings.Join(c.Fields.Names(), ", "), "the same again") + ")"
		}
		name := absolute(c.Name)
		if f.Type == tarstream.TypeDir && name != "/" {
			name += "/"
		}
		fmt.Fprintf(w, "%s  %7s  %s%s%s\n", c.Kind, size, printable(name), linkTarget(f), what)
	}
}
