package cli

import (
	"fmt"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/image/layout"
)

func (a *app) fsckCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "fsck [flags] [DIR]",
		Short: "Check all that is in the image store",
		Long: `Read every blob of the local store, or of the image layout DIR, and follow
every reference: digests, sizes, documents, the DiffID of every layer. What is
wrong is printed with what refers to it. The exit status is 0 if nothing is wrong,
4 if something is, as with e2fsck.

With --repair, blobs that are damaged are removed, so that a pull brings them back;
names that lead to nothing whole stay, and are told of.`,
		Example: `  tare fsck
  tare fsck --repair && tare pull debian:12
  tare fsck --format json`,
		Args: arguments(0, 1, "DIR"),
	}
	repair := cmd.Flags().Bool("repair", false, "remove what is damaged")
	noDiffIDs := cmd.Flags().Bool("no-diffids", false, "do not unpack layers to compute their DiffIDs, which takes most of the time")
	formatFlag(cmd, &format, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		dir, err := a.layoutDir(args)
		if err != nil {
			return err
		}
		store, err := layout.Open(dir, layout.Options{ReadOnly: len(args) > 0 && !*repair})
		if err != nil {
			return err
		}
		defer store.Close()
		report, err := store.Fsck(cmd.Context(), layout.FsckOptions{Repair: *repair, DiffIDs: !*noDiffIDs})
		if err != nil {
			return err
		}
		if err := a.printFsck(report, format); err != nil || len(report.Problems) == 0 {
			return err
		}
		return exitError{status: statusDamaged, err: fmt.Errorf("fsck %s: %s", dir, plural(len(report.Problems), "problem"))}
	}
	return cmd
}

// layoutDir is the image layout that is meant: the first argument, or the store.
func (a *app) layoutDir(args []string) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	e, err := a.engine()
	if err != nil {
		return "", err
	}
	defer e.Close()
	return e.ImagesDir(), nil
}

// fsckProblem is a problem for machines.
type fsckProblem struct {
	Blob      digest.Digest `json:"blob,omitempty"`
	What      string        `json:"what"`
	Referrers []string      `json:"referrers,omitempty"`
	Removed   bool          `json:"removed,omitempty"`
}

func (a *app) printFsck(r layout.FsckReport, format string) error {
	if format == "json" {
		problems := []fsckProblem{}
		for _, p := range r.Problems {
			problems = append(problems, fsckProblem(p))
		}
		return printJSON(a.stdout, struct {
			Blobs     int           `json:"blobs"`
			BlobBytes int64         `json:"blobBytes"`
			Layers    int           `json:"layers"`
			Encrypted int           `json:"encryptedLayers"`
			Problems  []fsckProblem `json:"problems"`
		}{r.Blobs, r.BlobBytes, r.Layers, r.Encrypted, problems})
	}
	for _, p := range r.Problems {
		fmt.Fprintln(a.stdout, printableLines(p.String()))
	}
	encrypted := ""
	if r.Encrypted > 0 {
		encrypted = fmt.Sprintf(", %s encrypted", plural(r.Encrypted, "layer"))
	}
	_, err := fmt.Fprintf(a.stdout, "%s, %s, %s unpacked%s: %s\n", plural(r.Blobs, "blob"), sizeText(r.BlobBytes), plural(r.Layers, "layer"),
		encrypted, plural(len(r.Problems), "problem"))
	return err
}
