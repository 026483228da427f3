package cli

import (
	"cmp"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/image"
)

func (a *app) imagesCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:     "images [flags] [PATTERN]",
		Aliases: []string{"list"},
		Short:   "List the images that are here",
		Long: `List the images that are here: all, or those whose name, with or without the tag, PATTERN matches.

Filters are reference=PATTERN, label=NAME[=VALUE], dangling=true|false (whether an image has no name),
before=IMAGE and since=IMAGE (made before or after another one).`,
		Example: `  tare images
  tare images 'localhost/*'
  tare images --filter label=team=web --filter since=debian:12
  tare images -q
  tare images --format json`,
		Args:              arguments(0, 1, "PATTERN"),
		ValidArgsFunction: a.completeImages(1),
	}
	quiet := cmd.Flags().BoolP("quiet", "q", false, "print the names only")
	full := cmd.Flags().Bool("no-trunc", false, "print whole digests and names")
	digests := cmd.Flags().Bool("digests", false, "print whole digests")
	filters := cmd.Flags().StringArrayP("filter", "f", nil, "list those that `NAME=VALUE` lets through")
	_ = cmd.RegisterFlagCompletionFunc("filter", completeFilters) // fails only for unknown flags
	formatFlag(cmd, &format, "table", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for _, pattern := range args {
			*filters = append(*filters, "reference="+pattern)
		}
		e, err := a.engine()
		if err != nil {
			return err
		}
		defer e.Close()
		images, err := e.Images(cmd.Context())
		if err == nil {
			images, err = e.FilterImages(cmd.Context(), images, *filters)
		}
		if err != nil {
			return err
		}
		switch {
		case *quiet:
			for _, i := range images {
				fmt.Fprintln(a.stdout, printable(cmp.Or(i.FamiliarName(), string(i.Target.Digest))))
			}
			return nil
		case format == "json":
			list := make([]imageSummary, len(images))
			for n, i := range images {
				list[n] = summary(i)
			}
			return printJSON(a.stdout, list)
		}
		return table(a.stdout, imageRows(images, *full, *full || *digests, time.Now()))
	}
	return cmd
}

func completeFilters(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var names []string
	for _, name := range engine.ImageFilterNames() {
		names = append(names, name+"=")
	}
	return names, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

func imageRows(images []engine.Image, fullNames, fullDigests bool, now time.Time) [][]string {
	rows := [][]string{{"NAME", "DIGEST", "PLATFORM", "CREATED", "SIZE"}}
	for _, i := range images {
		name, target := i.FamiliarName(), shortDigest(i.Target.Digest)
		if fullNames {
			name = i.Name
		}
		if fullDigests {
			target = string(i.Target.Digest)
		}
		if name == "" {
			name = "<none>"
		}
		row := []string{printable(name), target, "-", "-", "-"}
		if i.Image != nil {
			row[2] = image.PlatformString(i.Config.Platform)
			if i.Config.Created != nil {
				row[3] = agoText(*i.Config.Created, now)
			}
			row[4] = sizeText(i.SizeBytes)
		}
		rows = append(rows, row)
	}
	return rows
}

// imageSummary is an image of the list, for machines.
type imageSummary struct {
	Name      string        `json:"name"`
	Digest    digest.Digest `json:"digest"`
	MediaType string        `json:"mediaType"`
	Manifest  digest.Digest `json:"manifest,omitempty"`
	Config    digest.Digest `json:"config,omitempty"`
	Platform  string        `json:"platform,omitempty"`
	Created   *time.Time    `json:"created,omitempty"`
	SizeBytes int64         `json:"sizeBytes,omitempty"`
	Layers    int           `json:"layers,omitempty"`
}

func summary(i engine.Image) imageSummary {
	s := imageSummary{Name: i.Name, Digest: i.Target.Digest, MediaType: i.Target.MediaType}
	if i.Image != nil {
		s.Manifest, s.Config = i.Descriptor.Digest, i.Manifest.Config.Digest
		s.Platform, s.Created = image.PlatformString(i.Config.Platform), i.Config.Created
		s.SizeBytes, s.Layers = i.SizeBytes, len(i.Manifest.Layers)
	}
	return s
}
