package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layout"
)

func (a *app) inspectCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "inspect [flags] IMAGE",
		Short: "Show what an image is made of",
		Long: `Show what an image is made of: its digests, the platforms it is for, how its
command is run, and its layers. The image must be here; tare pull fetches it.`,
		Example: `  tare inspect debian:12
  tare inspect --platform linux/arm64 debian:12
  tare inspect --format json debian:12 | jq .config.config.Env`,
		Args:              arguments(1, 1, "IMAGE"),
		ValidArgsFunction: a.completeImages(1),
	}
	platform := platformFlag(cmd.Flags())
	formatFlag(cmd, &format, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		p, err := platform()
		if err != nil {
			return err
		}
		e, err := a.engine()
		if err != nil {
			return err
		}
		defer e.Close()
		img, err := e.Resolve(cmd.Context(), args[0], p)
		if err != nil {
			return err
		}
		index, err := indexOf(cmd.Context(), e, img)
		if err != nil {
			return err
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
	return cmd
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

// indexOf reads the index that the image was chosen from, if any.
func indexOf(ctx context.Context, e *engine.Engine, img engine.Image) (*v1.Index, error) {
	if image.KindOf(img.Target) != image.KindIndex {
		return nil, nil
	}
	store, err := layout.Open(e.ImagesDir(), layout.Options{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer store.Close()
	data, err := store.Fetch(ctx, img.Target)
	if err != nil {
		return nil, err
	}
	index, err := image.DecodeIndex(img.Target, data)
	return &index, err
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
