package cli

import (
	"cmp"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/distribution/remote"
	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/image/transfer"
)

func (a *app) syncCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "sync [flags] [REPOSITORY[:TAGS]...] DESTINATION",
		Short: "Keep copies of many images",
		Long: `Keep copies of many images: bring repositories, or the tags in them that match a
pattern, from registries to another place. What is there in the same version is
not copied again, so it can be done every night. It goes on after an image that
cannot be copied, and ends with status 1 then.

DESTINATION is docker://HOST[/PATH], a registry; oci:DIR, one image layout for all;
or dir:DIR, a directory for each image. All platforms are copied, unless some
are named with --platform. Patterns are those of file names: *, ?, [a-z].

A list given with --from has one REPOSITORY[:TAGS] on a line, and comments after #.`,
		Example: `  tare sync debian:12* alpine:3.20 docker://registry.example.com/mirror
  tare sync --from images.txt oci:/srv/images
  tare sync --dry-run --from images.txt docker://registry.example.com`,
		Args: arguments(1, -1, "DESTINATION"),
	}
	from := cmd.Flags().StringArray("from", nil, "read what to copy from `FILE`, or from standard input for -")
	scoped := cmd.Flags().Bool("scoped", false, "keep the source's host in the names at a registry or in directories")
	dryRun := cmd.Flags().BoolP("dry-run", "n", false, "only tell what would be copied")
	flags := a.declareTransferFlags(cmd)
	formatFlag(cmd, &format, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		items, err := a.syncItems(args[:len(args)-1], *from)
		if err != nil {
			return err
		}
		o := engine.SyncOptions{Scoped: *scoped, DryRun: *dryRun}
		return a.sync(cmd, flags, items, args[len(args)-1], o, format)
	}
	return cmd
}

func (a *app) sync(cmd *cobra.Command, flags transferFlags, items []engine.SyncItem, to string, o engine.SyncOptions, format string) (err error) {
	if len(*flags.what.platforms) == 0 {
		*flags.what.all = true // a mirror has them all
	}
	if o.Options, err = flags.what.options(); err != nil {
		return err
	}
	if creds := cmp.Or(*flags.srcCreds, *flags.registry.creds); creds != "" {
		for _, item := range items {
			if item.Host != items[0].Host {
				return usageError{fmt.Errorf("--creds and --src-creds are for one registry, and there are %s and %s: use tare login", items[0].Host, item.Host)}
			}
		}
	}
	var done []syncedImage
	o.Each = func(s engine.SyncedImage) {
		if format == "json" {
			done = append(done, summaryOfSync(s))
			return
		}
		a.tellSync(s, o.DryRun)
	}
	err = flags.open(func(e *engine.Engine, source, destination remote.Routed) error {
		o.From, o.To = source, destination
		return a.showTransfer("Syncing to "+to, func(p transfer.Progress) error {
			o.Progress = p
			return e.Sync(cmd.Context(), items, to, o)
		})
	})
	if format == "json" {
		err = errors.Join(printJSON(a.stdout, list(done)), err)
	}
	return err
}

func (a *app) syncItems(args, files []string) ([]engine.SyncItem, error) {
	var items []engine.SyncItem
	for _, arg := range args {
		item, err := engine.ParseSyncItem(arg)
		if err != nil {
			return nil, usageError{err}
		}
		items = append(items, item)
	}
	for _, name := range files {
		file := a.stdin
		if name != "-" {
			f, err := os.Open(name)
			if err != nil {
				return nil, err
			}
			defer f.Close()
			file = f
		}
		more, err := engine.ReadSyncList(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		items = append(items, more...)
	}
	if len(items) == 0 {
		return nil, usageError{errors.New("nothing to copy: name a REPOSITORY, or a list with --from FILE")}
	}
	return items, nil
}

// syncedImage is what became of one image, for machines.
type syncedImage struct {
	From   string `json:"from"`
	To     string `json:"to,omitempty"`
	Digest string `json:"digest,omitempty"`
	Copied bool   `json:"copied"`
	Error  string `json:"error,omitempty"`
}

func summaryOfSync(s engine.SyncedImage) syncedImage {
	row := syncedImage{From: s.From, To: s.To, Digest: s.Digest.String(), Copied: s.Copied && s.Err == nil}
	if s.Err != nil {
		row.Error = s.Err.Error()
	}
	return row
}

func (a *app) tellSync(s engine.SyncedImage, dryRun bool) {
	switch {
	case s.Err != nil:
		a.warn(fmt.Sprintf("%s: %v", s.From, s.Err))
	case !s.Copied:
		fmt.Fprintf(a.stdout, "unchanged %s %s\n", printable(s.To), s.Digest)
	case dryRun:
		fmt.Fprintf(a.stdout, "would copy %s %s\n", printable(s.To), s.Digest)
	default:
		fmt.Fprintf(a.stdout, "copied %s %s\n", printable(s.To), s.Digest)
	}
}
