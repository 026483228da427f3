package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/engine"
)

func (a *app) historyCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "history [flags] IMAGE",
		Short: "Show how an image came about",
		Long: `Show the steps that an image was made by, the last one first, each with the size
of the layer it has made, as it is packed.

` + transportsHelp,
		Example: `  tare history debian:12
  tare history --no-trunc --format json docker://debian:12`,
		Args: arguments(1, 1, "IMAGE"),
	}
	contents := a.declareContentsFlags(cmd)
	full := cmd.Flags().Bool("no-trunc", false, "print whole digests and commands")
	human := cmd.Flags().BoolP("human", "H", true, "print sizes and times as people read them")
	quiet := cmd.Flags().BoolP("quiet", "q", false, "print the digests of layers only")
	formatFlag(cmd, &format, "table", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return contents.open(cmd, args, func(all []*engine.Contents) error {
			steps := historyOf(all[0])
			switch {
			case format == "json":
				return printJSON(a.stdout, list(steps))
			case *quiet:
				for _, s := range steps {
					if s.Layer != "" {
						fmt.Fprintln(a.stdout, s.Layer)
					}
				}
				return nil
			}
			return table(a.stdout, historyRows(steps, *full, *human, time.Now()))
		})
	}
	return cmd
}

// historyStep is a step of an image's history, for machines.
type historyStep struct {
	Layer     digest.Digest `json:"layer,omitempty"` // none for a step that changed the configuration only
	Created   *time.Time    `json:"created,omitempty"`
	CreatedBy string        `json:"createdBy,omitempty"`
	Author    string        `json:"author,omitempty"`
	Comment   string        `json:"comment,omitempty"`
	SizeBytes int64         `json:"sizeBytes"`
}

// historyOf is an image's history with its layers, the last step first. A layer
// that the history does not tell of is there as well.
func historyOf(c *engine.Contents) (steps []historyStep) {
	layers := c.Image.Manifest.Layers
	take := func(s *historyStep) {
		s.Layer, s.SizeBytes, layers = layers[0].Digest, layers[0].Size, layers[1:]
	}
	for _, h := range c.Image.Config.History {
		s := historyStep{Created: h.Created, CreatedBy: h.CreatedBy, Author: h.Author, Comment: h.Comment}
		if !h.EmptyLayer && len(layers) > 0 {
			take(&s)
		}
		steps = append([]historyStep{s}, steps...)
	}
	for len(layers) > 0 {
		s := historyStep{}
		take(&s)
		steps = append([]historyStep{s}, steps...)
	}
	return steps
}

func historyRows(steps []historyStep, full, human bool, now time.Time) [][]string {
	rows := [][]string{{"LAYER", "CREATED", "CREATED BY", "SIZE", "COMMENT"}}
	for _, s := range steps {
		layer, by := shortDigest(s.Layer), shorten(printable(s.CreatedBy), 45)
		if full {
			layer, by = string(s.Layer), printable(s.CreatedBy)
		}
		created, size := "-", strconv.FormatInt(s.SizeBytes, 10)
		switch {
		case s.Created == nil:
		case human:
			created = agoText(*s.Created, now)
		default:
			created = s.Created.UTC().Format(time.RFC3339)
		}
		if human {
			size = sizeText(s.SizeBytes)
		}
		if layer == "" {
			layer = "-"
		}
		rows = append(rows, []string{layer, created, by, size, strings.TrimSpace(printable(s.Comment))})
	}
	return rows
}
