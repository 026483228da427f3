package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/engine/transport"
	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/transfer"
)

func (a *app) inspectCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "inspect [flags] IMAGE",
		Short: "Show what an image is made of",
		Long: `Show what an image is made of: its digests, the platforms it is for, how its
command is run, and its layers; or with --tree everything that the name leads to,
with sizes. A plain name is that of an image which is here. Others are looked at
where they are, and no layer is fetched.

` + transportsHelp,
		Example: `  tare inspect debian:12
  tare inspect --tree docker://debian:12
  tare inspect --platform linux/arm64 debian:12
  tare inspect --raw docker://debian:12 | sha256sum
  tare inspect --config --format json debian:12 | jq .config.Env`,
		Args:              arguments(1, 1, "IMAGE"),
		ValidArgsFunction: a.completePlaces,
	}
	var show inspectFlags
	cmd.Flags().BoolVar(&show.tree, "tree", false, "index, manifests, configs and layers as a tree")
	cmd.Flags().BoolVar(&show.raw, "raw", false, "the manifest or index itself, byte for byte")
	cmd.Flags().BoolVar(&show.config, "config", false, "the image's configuration, byte for byte")
	cmd.Flags().BoolVar(&show.full, "no-trunc", false, "print whole digests in the tree")
	platform := platformFlag(cmd.Flags())
	formatFlag(cmd, &format, "text", "json")
	registry := declareRegistryFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if show.tree && show.raw || show.raw && show.config || show.config && show.tree {
			return usageError{errors.New("--tree, --raw and --config cannot be had at once")}
		}
		if show.platform, err = platform(); err != nil {
			return err
		}
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
		src, name, err := openToInspect(cmd.Context(), e, args[0], client)
		if err != nil {
			return err
		}
		defer src.Close()
		show.name = name
		return a.inspect(cmd.Context(), src, show, format)
	}
	return cmd
}

// openToInspect opens an image where it is, and returns what it is called there.
func openToInspect(ctx context.Context, e *engine.Engine, name string, registry engine.Registry) (transfer.Source, string, error) {
	l, err := transport.Parse(name)
	if err != nil {
		return nil, "", usageError{err}
	}
	called := name
	if l.Kind == transport.Plain { // and not on a registry, which has not been named
		found, err := e.Find(ctx, name)
		if err != nil {
			return nil, "", err
		}
		called = cmp.Or(found.Name, string(found.Desc.Digest))
	}
	src, err := e.OpenSource(ctx, name, registry)
	return src, called, err
}

// inspectFlags say what to show of an image.
type inspectFlags struct {
	name                    string
	tree, raw, config, full bool
	platform                *v1.Platform
}

func (a *app) inspect(ctx context.Context, src transfer.Source, show inspectFlags, format string) error {
	root := src.Root()
	data, err := src.Fetch(ctx, root)
	if err != nil {
		return err
	}
	if show.raw {
		_, err := a.stdout.Write(data)
		return err
	}
	if show.tree {
		out := bufio.NewWriter(a.stdout)
		return errors.Join(treePrinter{ctx, src, out, show.full}.print(show.name), out.Flush())
	}
	want := image.HostPlatform()
	if show.platform != nil {
		want = *show.platform
	}
	selected, err := image.Select(ctx, src, root, want)
	if err != nil {
		return fmt.Errorf("image %s: %w", show.name, err)
	}
	if show.config {
		config, err := src.Fetch(ctx, selected.Manifest.Config)
		if err == nil {
			_, err = a.stdout.Write(config)
		}
		return err
	}
	img := engine.ImageOf(show.name, root, selected)
	var index *v1.Index
	if image.KindOf(root) == image.KindIndex {
		i, err := image.DecodeIndex(root, data)
		if err != nil {
			return err
		}
		index = &i
	}
	if format == "json" {
		return printJSON(a.stdout, inspection{
			Name: img.Name, Target: img.Target, Index: index, Descriptor: img.Descriptor, Manifest: img.Manifest, Config: img.Config,
			SizeBytes: img.SizeBytes,
		})
	}
	out := bufio.NewWriter(a.stdout)
	printImage(out, img, index, time.Now())
	return out.Flush()
}

// inspection is what there is to know of an image, for machines.
type inspection struct {
	Name       string        `json:"name,omitempty"`
	Target     v1.Descriptor `json:"target"`
	Index      *v1.Index     `json:"index,omitempty"`
	Descriptor v1.Descriptor `json:"descriptor"`
	Manifest   v1.Manifest   `json:"manifest"`
	Config     v1.Image      `json:"config"`
	SizeBytes  int64         `json:"sizeBytes"`
}

// printImage prints for people. All of it was written by others.
func printImage(w io.Writer, img engine.Image, index *v1.Index, now time.Time) {
	name := img.FamiliarName()
	if name == "" {
		name = string(img.Target.Digest)
	}
	fmt.Fprintln(w, printable(name))
	rows := fields{{"digest", string(img.Target.Digest)}}
	if index != nil {
		rows = append(rows, [2]string{"index of", platforms(index)}, [2]string{"manifest", string(img.Descriptor.Digest)})
	}
	rows = append(rows, [2]string{"config", string(img.Manifest.Config.Digest)}, [2]string{"platform", image.PlatformString(img.Config.Platform)})
	if c := img.Config.Created; c != nil && c.Unix() > 0 {
		rows = append(rows, [2]string{"created", c.UTC().Format("2006-01-02 15:04:05 MST") + ", " + agoText(*c, now)})
	}
	rows = append(rows, [2]string{"size", sizeText(img.SizeBytes) + " in " + plural(len(img.Manifest.Layers), "layer")})
	rows.print(w)
	if rows := configFields(img.Config.Config); len(rows) > 0 {
		fmt.Fprintln(w, "\nruns")
		rows.print(w)
	}
	if len(img.Manifest.Layers) > 0 {
		fmt.Fprintln(w, "\nlayers, the lowest first")
		printLayers(w, img)
	}
}

// fields are names and values below a heading.
type fields [][2]string

func (f fields) print(w io.Writer) {
	width := 0
	for _, row := range f {
		width = max(width, len(row[0]))
	}
	for _, row := range f {
		fmt.Fprintf(w, "  %-*s  %s\n", width, row[0], printable(row[1]))
	}
}

func configFields(c v1.ImageConfig) (rows fields) {
	add := func(name, value string) {
		if value != "" {
			rows = append(rows, [2]string{name, value})
		}
	}
	add("entrypoint", quoted(c.Entrypoint))
	add("cmd", quoted(c.Cmd))
	add("user", c.User)
	add("workdir", c.WorkingDir)
	for i, e := range c.Env {
		rows = append(rows, [2]string{[]string{"env", ""}[min(i, 1)], e})
	}
	add("ports", strings.Join(slices.Sorted(maps.Keys(c.ExposedPorts)), " "))
	add("volumes", strings.Join(slices.Sorted(maps.Keys(c.Volumes)), " "))
	add("stop signal", c.StopSignal)
	for i, name := range slices.Sorted(maps.Keys(c.Labels)) {
		rows = append(rows, [2]string{[]string{"labels", ""}[min(i, 1)], name + "=" + c.Labels[name]})
	}
	return rows
}

// quoted writes words so that one sees where each begins.
func quoted(words []string) string {
	var all []string
	for _, w := range words {
		if w == "" || strings.ContainsAny(w, " \t\n\"'\\$`") {
			w = fmt.Sprintf("%q", w)
		}
		all = append(all, w)
	}
	return strings.Join(all, " ")
}

func platforms(index *v1.Index) string {
	var all []string
	for _, m := range index.Manifests {
		if m.Platform != nil && m.Platform.OS != "unknown" { // attestations are marked so
			all = append(all, image.PlatformString(*m.Platform))
		}
	}
	return strings.Join(all, ", ")
}

// printLayers shows each layer with the history entry that made it.
func printLayers(w io.Writer, img engine.Image) {
	var history []v1.History
	for _, h := range img.Config.History {
		if !h.EmptyLayer {
			history = append(history, h)
		}
	}
	for i, l := range img.Manifest.Layers {
		compression := image.LookupMediaType(l.MediaType).Compression
		if compression == image.Uncompressed {
			compression = "tar"
		}
		by := ""
		if i < len(history) {
			by = history[i].CreatedBy
		}
		text := fmt.Sprintf("  %2d  %s  %7s  %-4s  %s", i+1, shortDigest(l.Digest), sizeText(l.Size), compression, shorten(printable(by), 80))
		fmt.Fprintln(w, strings.TrimRight(text, " "))
	}
}

func shorten(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}
