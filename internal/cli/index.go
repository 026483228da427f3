package cli

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/transfer"
)

func (a *app) indexCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "index COMMAND",
		Short: "Make and change indexes: images for several platforms under one name",
		Long: `Make and change image indexes, which other tools call manifest lists: images for
several platforms under one name. They may be in the store, in layouts and on
registries, and their images anywhere.`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.indexCreateCommand(), a.indexAddCommand(), a.indexRemoveCommand(), a.indexAnnotateCommand(), a.indexInspectCommand())
	for _, c := range cmd.Commands() {
		c.DisableFlagsInUseLine = true
		c.Flags().SortFlags = false
	}
	return cmd
}

// indexFlags are those of the verbs that change an index.
type indexFlags struct {
	app         *app
	tag         *string
	quiet       *bool
	annotations *[]string
	platform    func() (*v1.Platform, error)
	osVersion   *string
	osFeatures  *[]string
	registry    registryFlags
}

func (a *app) declareIndexFlags(cmd *cobra.Command, platformUsage string) *indexFlags {
	f := cmd.Flags()
	flags := &indexFlags{app: a}
	if platformUsage != "" {
		flags.platform = platformFlag(f)
		f.Lookup("platform").Usage = platformUsage
		flags.osVersion = f.String("os-version", "", "and for `VERSION` of the operating system")
		flags.osFeatures = f.StringArray("os-feature", nil, "and needs `FEATURE` of it")
	}
	flags.annotations = f.StringArray("annotation", nil, "`NAME=VALUE`, or NAME- to remove it")
	flags.quiet = f.BoolP("quiet", "q", false, "no progress, only the digest")
	flags.registry = declareRegistryFlags(f)
	cmd.ValidArgsFunction = a.completePlaces
	return flags
}

// overriding is the platform that the flags give, nil for that of the config.
func (f *indexFlags) overriding() (*v1.Platform, error) {
	p, err := f.platform()
	if err != nil || p == nil {
		if err == nil && *f.osVersion != "" || len(*f.osFeatures) > 0 {
			err = usageError{errors.New("--os-version and --os-feature need --platform")}
		}
		return nil, err
	}
	p.OSVersion, p.OSFeatures = *f.osVersion, *f.osFeatures
	return p, nil
}

// edit has do change an index, and prints the digest of what came of it.
func (f *indexFlags) edit(title string, do func(*engine.Engine, engine.EditOptions) (transfer.Result, error)) error {
	a := f.app
	a.quiet = a.quiet || *f.quiet
	client, err := f.registry.client(a)
	if err != nil {
		return err
	}
	defer client.Close()
	e, err := a.engine()
	if err != nil {
		return err
	}
	defer e.Close()
	var r transfer.Result
	o := engine.EditOptions{Registry: client}
	if f.tag != nil {
		o.Tag = *f.tag
	}
	err = a.showTransfer(title, func(p transfer.Progress) (err error) {
		o.Progress = p
		r, err = do(e, o)
		return err
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.stdout, r.Root.Digest)
	return err
}

func (f *indexFlags) withTag(cmd *cobra.Command) *indexFlags {
	f.tag = cmd.Flags().StringP("tag", "t", "", "name the result `NAME`, and leave the index as it is")
	return f
}

const entriesHelp = `An image is entered for the platform that its configuration names; --platform says
otherwise. Another index is entered as one entry, or with --flat each of its own
entries. What is there already, by its digest or its platform, is an error, unless
--replace puts the new one in its place.

`

func (a *app) indexCreateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create [flags] INDEX IMAGE...",
		Short: "Make an index of images",
		Long:  "Make an index of images, and give it the name INDEX, whatever has that so far.\n\n" + entriesHelp + transportsHelp,
		Example: `  tare index create app:v1 app:v1-amd64 app:v1-arm64
  tare index create docker://registry.example.com/team/app:v1 oci:build:amd64 oci:build:arm64
  tare index create --platform linux/arm/v6 pi:v1 oci:build:pi`,
		Args: arguments(1, -1, "INDEX and IMAGEs"),
	}
	return a.indexEntries(cmd, true)
}

func (a *app) indexAddCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add [flags] INDEX IMAGE...",
		Short: "Add images to an index",
		Long:  "Add images to an index, or replace those for the same platform.\n\n" + entriesHelp + transportsHelp,
		Example: `  tare index add app:v1 app:v1-riscv64
  tare index add --replace docker://registry.example.com/team/app:v1 oci:build:arm64`,
		Args: arguments(2, -1, "INDEX and IMAGEs"),
	}
	return a.indexEntries(cmd, false)
}

func (a *app) indexEntries(cmd *cobra.Command, create bool) *cobra.Command {
	f := a.declareIndexFlags(cmd, "enter the image for `OS/ARCH[/VARIANT]`, whatever its configuration says")
	replace := cmd.Flags().Bool("replace", false, "replace entries for the same platform")
	flat := cmd.Flags().Bool("flat", false, "enter what another index lists, not the index")
	if !create {
		f.withTag(cmd)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		annotations, err := annotationsOf(*f.annotations)
		if err != nil {
			return err
		}
		platform, err := f.overriding()
		if err != nil {
			return err
		}
		if platform != nil && len(args) > 2 {
			return usageError{errors.New("--platform is for one image")}
		}
		change := engine.IndexChange{Create: create, Add: args[1:], Platform: platform, Replace: *replace, Flat: *flat}
		if create {
			change.Annotations = annotations
		} else {
			change.EntryAnnotations = annotations
		}
		return f.edit("Making "+args[0], func(e *engine.Engine, o engine.EditOptions) (transfer.Result, error) {
			return e.EditIndex(cmd.Context(), args[0], change, o)
		})
	}
	return cmd
}

func (a *app) indexRemoveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "remove [flags] INDEX PLATFORM|DIGEST...",
		Aliases: []string{"rm"},
		Short:   "Remove images from an index",
		Long:    "Remove the entries for a platform, or of a digest, from an index. The images stay where they are.\n\n" + transportsHelp,
		Example: `  tare index remove app:v1 linux/riscv64
  tare index remove docker://registry.example.com/team/app:v1 sha256:6a2ff16230ca…`,
		Args: arguments(2, -1, "INDEX and PLATFORMs or DIGESTs"),
	}
	f := a.declareIndexFlags(cmd, "").withTag(cmd)
	_ = cmd.Flags().MarkHidden("annotation")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		entries, err := selectors(args[1:])
		if err != nil {
			return err
		}
		return f.edit("Changing "+args[0], func(e *engine.Engine, o engine.EditOptions) (transfer.Result, error) {
			return e.EditIndex(cmd.Context(), args[0], engine.IndexChange{Remove: entries}, o)
		})
	}
	return cmd
}

func (a *app) indexAnnotateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "annotate [flags] INDEX [PLATFORM|DIGEST]",
		Short: "Set annotations and platforms in an index",
		Long: `Set or remove annotations of an index, or, with a PLATFORM or DIGEST, of that entry
in it, whose platform can be set as well.

` + transportsHelp,
		Example: `  tare index annotate --annotation org.opencontainers.image.version=1.2 app:v1
  tare index annotate --platform linux/arm/v6 app:v1 linux/arm/v7`,
		Args: arguments(1, 2, "INDEX and PLATFORM or DIGEST"),
	}
	f := a.declareIndexFlags(cmd, "say that the entry is for `OS/ARCH[/VARIANT]`").withTag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		annotations, err := annotationsOf(*f.annotations)
		if err != nil {
			return err
		}
		platform, err := f.overriding()
		if err != nil {
			return err
		}
		entries, err := selectors(args[1:])
		if err != nil {
			return err
		}
		change := engine.IndexChange{Annotate: entries, Platform: platform, EntryAnnotations: annotations}
		switch {
		case len(annotations) == 0 && platform == nil:
			return usageError{errors.New("no change is asked for")}
		case len(entries) == 0 && platform != nil:
			return usageError{errors.New("--platform needs an entry")}
		case len(entries) == 0:
			change = engine.IndexChange{Annotations: annotations}
		}
		return f.edit("Changing "+args[0], func(e *engine.Engine, o engine.EditOptions) (transfer.Result, error) {
			return e.EditIndex(cmd.Context(), args[0], change, o)
		})
	}
	return cmd
}

// selectors read what chooses entries of an index.
func selectors(texts []string) (all []engine.IndexEntry, err error) {
	for _, text := range texts {
		if hex, ok := strings.CutPrefix(text, "sha"); ok && strings.Contains(hex, ":") {
			all = append(all, engine.IndexEntry{DigestPrefix: text})
			continue
		}
		p, err := image.ParsePlatform(text)
		if err != nil {
			return nil, usageError{fmt.Errorf("%q is neither a digest nor a platform: %w", text, err)}
		}
		all = append(all, engine.IndexEntry{Platform: &p})
	}
	return all, nil
}

func (a *app) indexInspectCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "inspect [flags] INDEX",
		Short: "Show what an index lists",
		Long:  "Show what an index lists, and the indexes in it.\n\n" + transportsHelp,
		Example: `  tare index inspect app:v1
  tare index inspect --format raw docker://registry.example.com/team/app:v1 | sha256sum`,
		Args: arguments(1, 1, "INDEX"),
	}
	formatFlag(cmd, &format, "text", "json", "raw")
	registry := declareRegistryFlags(cmd.Flags())
	cmd.ValidArgsFunction = a.completePlaces
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		client, err := registry.client(a)
		if err != nil {
			return err
		}
		defer client.Close()
		e, err := a.engine()
		if err != nil {
			return err
		}
		defer e.Close()
		x, err := e.InspectIndex(cmd.Context(), args[0], client)
		if err != nil {
			return err
		}
		switch format {
		case "raw":
			_, err := a.stdout.Write(x.Raw)
			return err
		case "json":
			return printJSON(a.stdout, indexInfoOf(x))
		}
		out := bufio.NewWriter(a.stdout)
		printIndex(out, x)
		return out.Flush()
	}
	return cmd
}

// indexInfo is an index, for machines; Entries[i].Index is there for a nested one.
type indexInfo struct {
	Descriptor  v1.Descriptor     `json:"descriptor"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Entries     []entryInfo       `json:"entries"`
}

type entryInfo struct {
	v1.Descriptor
	Index *indexInfo `json:"index,omitempty"`
}

func indexInfoOf(x *engine.IndexTree) *indexInfo {
	i := &indexInfo{Descriptor: x.Descriptor, Annotations: x.Index.Annotations, Entries: []entryInfo{}}
	for _, d := range x.Index.Manifests {
		e := entryInfo{Descriptor: d}
		if n := x.Nested[d.Digest]; n != nil {
			e.Index = indexInfoOf(n)
		}
		i.Entries = append(i.Entries, e)
	}
	return i
}

func printIndex(w io.Writer, x *engine.IndexTree) {
	rows := fields{{"digest", string(x.Descriptor.Digest)}}
	for i, name := range annotationNames(x.Index.Annotations) {
		rows = append(rows, [2]string{[]string{"annotations", ""}[min(i, 1)], name + "=" + x.Index.Annotations[name]})
	}
	rows.print(w)
	fmt.Fprintln(w)
	table(w, append([][]string{{"PLATFORM", "DIGEST", "SIZE", "KIND", "ANNOTATIONS"}}, indexRows(x, "")...))
}

func annotationNames(all map[string]string) []string {
	var names []string
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func indexRows(x *engine.IndexTree, indent string) (rows [][]string) {
	for _, d := range x.Index.Manifests {
		platform := "-"
		if d.Platform != nil {
			platform = platformText(*d.Platform)
		}
		var notes []string
		for _, name := range annotationNames(d.Annotations) {
			notes = append(notes, name+"="+d.Annotations[name])
		}
		kind := image.KindOf(d).String()
		if d.ArtifactType != "" {
			kind = d.ArtifactType
		}
		rows = append(rows, []string{indent + printable(platform), string(d.Digest), sizeText(d.Size), printable(kind),
			cmp.Or(shorten(printable(strings.Join(notes, " ")), 60), "-")})
		if n := x.Nested[d.Digest]; n != nil {
			rows = append(rows, indexRows(n, indent+"  ")...)
		}
	}
	return rows
}

// platformText is a platform with all that tells it from others.
func platformText(p v1.Platform) string {
	text := image.PlatformString(p)
	if p.OSVersion != "" {
		text += ":" + p.OSVersion
	}
	for _, f := range p.OSFeatures {
		text += "+" + f
	}
	return text
}
