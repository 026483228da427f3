package cli

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/remote"
	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/image/transfer"
)

func (a *app) artifactCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "artifact COMMAND",
		Short: "Push and pull files of any kind",
		Long: `Push and pull files of any kind: charts, SBOMs, signatures, WASM modules. On a
registry they are artifacts: manifests with a type of their own.`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, sub := range []*cobra.Command{a.artifactPushCommand(), a.artifactPullCommand()} {
		sub.DisableFlagsInUseLine = true
		sub.Flags().SortFlags = false
		cmd.AddCommand(sub)
	}
	return cmd
}

const filesHelp = `A file is written FILE[:MEDIATYPE]; without a media type it is
application/octet-stream. It keeps its base name.`

// artifactFlags are what push and attach have in common.
type artifactFlags struct {
	kind, config *string
	annotations  *[]string
}

func declareArtifactFlags(cmd *cobra.Command) artifactFlags {
	return artifactFlags{
		kind:        cmd.Flags().String("artifact-type", "", "what the artifact is, as a media `TYPE`, such as application/spdx+json"),
		config:      cmd.Flags().String("config", "", "a config for the artifact, as `FILE:MEDIATYPE`; by default it is empty"),
		annotations: cmd.Flags().StringArrayP("annotation", "a", nil, "annotate the manifest with `KEY=VALUE`; may be repeated"),
	}
}

func (f artifactFlags) options(files []string) (engine.ArtifactOptions, error) {
	o := engine.ArtifactOptions{Type: *f.kind, Annotations: map[string]string{}}
	for _, s := range *f.annotations {
		key, value, ok := strings.Cut(s, "=")
		if !ok || key == "" {
			return o, usageError{fmt.Errorf("--annotation %q: want KEY=VALUE", s)}
		}
		o.Annotations[key] = value
	}
	if *f.config != "" {
		c := artifactFile(*f.config, "")
		if c.MediaType == "" {
			return o, usageError{fmt.Errorf("--config %q: want FILE:MEDIATYPE", *f.config)}
		}
		o.Config = &c
	}
	switch {
	case o.Type == "" && o.Config == nil:
		return o, usageError{errors.New("--artifact-type is missing: say what it is, as a media type")}
	case o.Type != "" && !distribution.ValidMediaType(o.Type):
		return o, usageError{fmt.Errorf("--artifact-type %q: not a media type", o.Type)}
	}
	for _, s := range files {
		file := artifactFile(s, "application/octet-stream")
		if !distribution.ValidMediaType(file.MediaType) {
			return o, usageError{fmt.Errorf("%s: %q is not a media type", s, file.MediaType)}
		}
		o.Files = append(o.Files, file)
	}
	return o, nil
}

// artifactFile reads FILE[:MEDIATYPE]. A media type has a slash, and what
// follows the last colon of a path with a colon in it mostly has none.
func artifactFile(s, mediaType string) engine.ArtifactFile {
	if i := strings.LastIndexByte(s, ':'); i > 0 && strings.Contains(s[i:], "/") {
		return engine.ArtifactFile{Path: s[:i], MediaType: s[i+1:]}
	}
	return engine.ArtifactFile{Path: s, MediaType: mediaType}
}

func (a *app) artifactPushCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "push [flags] REFERENCE FILE...",
		Short: "Push files to a registry as one artifact",
		Long:  "Push files to a registry as one artifact. Its digest is printed.\n\n" + filesHelp,
		Example: `  tare artifact push --artifact-type application/vnd.example.model registry.example.com/models/m:1 weights.bin
  tare artifact push --config meta.json:application/vnd.cncf.helm.config.v1+json registry.example.com/charts/app:1.0.0 \
      app-1.0.0.tgz:application/vnd.cncf.helm.chart.content.v1.tar+gzip`,
		Args: arguments(1, -1, "REFERENCE and FILE"),
	}
	flags := declareArtifactFlags(cmd)
	return a.registryVerb(cmd, func(cmd *cobra.Command, args []string, client remote.Routed) error {
		ref, err := onRegistry(args[0])
		if err != nil {
			return err
		}
		o, err := flags.options(args[1:])
		if err != nil {
			return err
		}
		return a.pushArtifact(cmd, client, ref.WithDefaultTag(), o)
	})
}

func (a *app) pushArtifact(cmd *cobra.Command, client remote.Routed, ref distribution.Reference, o engine.ArtifactOptions) error {
	var desc v1.Descriptor
	err := a.showTransfer("Pushing to "+ref.String(), func(p transfer.Progress) (err error) {
		o.Progress = p
		desc, err = engine.PushArtifact(cmd.Context(), client, ref, o)
		return err
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.stdout, desc.Digest)
	return err
}

func (a *app) artifactPullCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pull [flags] SOURCE",
		Short: "Write the files of an artifact to a directory",
		Long: `Write the files of an artifact to a directory, verified, under the names that
they were pushed with. Nothing outside the directory is written, and nothing that
is there is replaced without --overwrite. The names are printed.

` + transportsHelp,
		Example: `  tare artifact pull registry.example.com/charts/app:1.0.0
  tare artifact pull -o model docker://registry.example.com/models/m:1`,
		Args: arguments(1, 1, "SOURCE"),
	}
	dir := cmd.Flags().StringP("output", "o", ".", "write to `DIR`")
	overwrite := cmd.Flags().Bool("overwrite", false, "replace files that are there")
	return a.registryVerb(cmd, func(cmd *cobra.Command, args []string, client remote.Routed) error {
		e, err := a.engine()
		if err != nil {
			return err
		}
		defer e.Close()
		src, err := e.OpenSource(cmd.Context(), args[0], client)
		if err != nil {
			return err
		}
		defer src.Close()
		var names []string
		err = a.showTransfer("Pulling "+args[0], func(p transfer.Progress) (err error) {
			names, err = engine.PullArtifact(cmd.Context(), src, *dir, *overwrite, p)
			return err
		})
		if err != nil {
			return err
		}
		for _, name := range names {
			fmt.Fprintln(a.stdout, printable(name))
		}
		return nil
	})
}

func (a *app) attachCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "attach [flags] IMAGE FILE...",
		Short: "Attach files to an image on a registry",
		Long: `Attach files, such as an SBOM or a signature, to an image on a registry: they
become an artifact that refers to the image, which discover finds. The image does
not change. The artifact's digest is printed.

` + filesHelp,
		Example: `  tare attach --artifact-type application/spdx+json registry.example.com/team/app:v1 sbom.json:application/spdx+json`,
		Args:    arguments(1, -1, "IMAGE and FILE"),
	}
	flags := declareArtifactFlags(cmd)
	return a.registryVerb(cmd, func(cmd *cobra.Command, args []string, client remote.Routed) error {
		ref, err := onRegistry(args[0])
		if err != nil {
			return err
		}
		o, err := flags.options(args[1:])
		if err != nil {
			return err
		}
		subject, _, err := client.Resolve(cmd.Context(), ref.WithDefaultTag())
		if err != nil {
			return err
		}
		o.Subject = &subject
		return a.pushArtifact(cmd, client, distribution.Reference{Repository: ref.Repository}, o)
	})
}

func (a *app) discoverCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "discover [flags] IMAGE",
		Short: "Show what is attached to an image on a registry",
		Long: `Show what is attached to an image on a registry: signatures, SBOMs and other
artifacts that refer to it, and what refers to those in turn.`,
		Example: `  tare discover registry.example.com/team/app:v1
  tare discover --artifact-type application/spdx+json --format json registry.example.com/team/app:v1`,
		Args: arguments(1, 1, "IMAGE"),
	}
	kind := cmd.Flags().String("artifact-type", "", "only artifacts of this media `TYPE`")
	formatFlag(cmd, &format, "tree", "json")
	return a.registryVerb(cmd, func(cmd *cobra.Command, args []string, client remote.Routed) error {
		ref, err := onRegistry(args[0])
		if err != nil {
			return err
		}
		ref = ref.WithDefaultTag()
		found, err := engine.Discover(cmd.Context(), client, ref, *kind)
		if err != nil {
			return err
		}
		if format == "json" {
			return printJSON(a.stdout, found)
		}
		at := distribution.Reference{Repository: ref.Repository, Digest: found.Digest}
		fmt.Fprintln(a.stdout, at)
		printReferrers(a.stdout, found.Referrers, "")
		return nil
	})
}

func printReferrers(w io.Writer, list []engine.Referrer, indent string) {
	for i, r := range list {
		branch, below := "├── ", "│   "
		if i == len(list)-1 {
			branch, below = "└── ", "    "
		}
		kind := r.ArtifactType
		if kind == "" {
			kind = r.MediaType
		}
		fmt.Fprintf(w, "%s%s%s  %s\n", indent, branch, printable(kind), r.Digest)
		for _, key := range slices.Sorted(maps.Keys(r.Annotations)) {
			mark := "    "
			if len(r.Referrers) > 0 {
				mark = "│   "
			}
			fmt.Fprintf(w, "%s%s%s%s: %s\n", indent, below, mark, printable(key), printable(r.Annotations[key]))
		}
		printReferrers(w, r.Referrers, indent+below)
	}
}
