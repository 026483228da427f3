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
		Use:     "images [flags]",
		Aliases: []string{"list"},
		Short:   "List the images that are here",
		Example: `  tare images
  tare images -q
  tare images --format json`,
		Args: arguments(0, 0, ""),
	}
	quiet := cmd.Flags().BoolP("quiet", "q", false, "print the names only")
	full := cmd.Flags().Bool("no-trunc", false, "print whole digests and names")
	formatFlag(cmd, &format, "table", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		e, err := a.engine()
		if err != nil {
			return err
		}
		defer e.Close()
		images, err := e.Images(cmd.Context())
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
		return table(a.stdout, imageRows(images, *full, time.Now()))
	}
	return cmd
}

func imageRows(images []engine.Image, full bool, now time.Time) [][]string {
	rows := [][]string{{"NAME", "DIGEST", "PLATFORM", "CREATED", "SIZE"}}
	for _, i := range images {
		name, target := i.FamiliarName(), shortDigest(i.Target.Digest)
		if full {
			name, target = i.Name, string(i.Target.Digest)
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
