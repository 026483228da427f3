package cli

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tare-oci/tare/distribution/server/config"
	"github.com/tare-oci/tare/distribution/server/service"
	"github.com/tare-oci/tare/distribution/server/storage"
)

// serveFlags are those of the file's keys that also are flags.
type serveFlags struct {
	config, addr, storage, sync, cert, key string
	noAuth, check                          bool
}

func (a *app) serveCommand() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve [flags]",
		Short: "Be a registry",
		Long: `Be a registry of the OCI Distribution Spec, which docker, podman, skopeo and all
others can push to and pull from. Without a configuration file it listens on
127.0.0.1:5000 and is open to everybody on this machine.

An interrupt or SIGTERM ends it: it takes no new connection and lets those under
way finish. docs/registry.md tells all that the configuration file can say.`,
		Example: `  tare serve
  tare serve --addr 127.0.0.1:5001 --storage /srv/registry
  tare serve --config /etc/tare/registry.toml --check`,
		Args: arguments(0, 0, ""),
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.config, "config", "c", "", "read the configuration from `FILE`; flags come before what it says")
	flags.StringVar(&f.addr, "addr", "", "listen on `HOST:PORT` (default 127.0.0.1:5000)")
	flags.StringVar(&f.storage, "storage", "", "keep everything in `DIR`, or in a bucket: s3://BUCKET/PREFIX (default is registry below --root)")
	flags.StringVar(&f.sync, "sync", "", "on: what was acknowledged is on the disk; off: leave that to the kernel (default on)")
	flags.StringVar(&f.cert, "tls-cert", "", "speak HTTPS with the certificate chain in the PEM `FILE`")
	flags.StringVar(&f.key, "tls-key", "", "the certificate's key, a PEM `FILE`")
	flags.BoolVar(&f.noAuth, "insecure-no-auth", false, "listen beyond this machine even though everybody may push")
	cmd.AddCommand(a.serveGCCommand(), a.serveQuotaCommand(), a.serveScrubCommand())
	flags.BoolVar(&f.check, "check", false, "only tell whether the configuration is right and the storage in reach")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.serveConfig(flags, f)
		if err != nil {
			return err
		}
		s, err := service.New(c, a.stderr, a.getenv)
		if err != nil {
			return fmt.Errorf("serve: %w", err)
		}
		if f.check {
			if err := s.Check(cmd.Context()); err != nil {
				return fmt.Errorf("serve: %w", err)
			}
			_, err := fmt.Fprintf(a.stdout, "The configuration is right: %s, storage %s.\n", c.HTTP.Addr, c.Storage.Location)
			return err
		}
		if err := s.Run(cmd.Context(), nil); err != nil {
			return fmt.Errorf("serve: %w", err)
		}
		return nil
	}
	return cmd
}

// serveConfig is the file's configuration, or the default one, with the flags
// over it.
func (a *app) serveConfig(flags *pflag.FlagSet, f serveFlags) (config.Config, error) {
	c := config.Default()
	c.Log.Format = a.logFormat
	if f.config != "" {
		var err error
		if c, err = config.Load(f.config); err != nil {
			return c, err
		}
	}
	for name, set := range map[string]func(){
		"addr":             func() { c.HTTP.Addr = f.addr },
		"storage":          func() { c.Storage.Location = f.storage },
		"sync":             func() { c.Storage.Sync = f.sync == "on" },
		"tls-cert":         func() { c.TLS.Cert = f.cert },
		"tls-key":          func() { c.TLS.Key = f.key },
		"insecure-no-auth": func() { c.HTTP.InsecureNoAuth = f.noAuth },
		"log-format":       func() { c.Log.Format = a.logFormat },
	} {
		if flags.Changed(name) {
			set()
		}
	}
	if f.sync != "" && f.sync != "on" && f.sync != "off" {
		return c, usageError{fmt.Errorf("--sync %q: want on or off", f.sync)}
	}
	if c.Storage.Location == "" {
		root, _, err := a.roots()
		if err != nil {
			return c, err
		}
		c.Storage.Location = filepath.Join(root, "registry")
	}
	return c, nil
}

// collectReport is what tare serve gc prints.
type collectReport struct {
	storage.CollectReport
	Removed []storage.Removal `json:"removed"`
}

func (a *app) collect(ctx context.Context, s *service.Service, dryRun bool) (r collectReport, err error) {
	r.Removed = []storage.Removal{}
	r.CollectReport, err = s.Collect(ctx, dryRun, func(what storage.Removal) { r.Removed = append(r.Removed, what) })
	return r, err
}

func (r *collectReport) print(w io.Writer, dryRun bool) error {
	verb := "Removed"
	if dryRun {
		verb = "Would remove"
	}
	for _, what := range r.Removed {
		name := what.Repository + "@" + what.Digest.String()
		if what.Tag != "" {
			name = what.Repository + ":" + what.Tag
		}
		if _, err := fmt.Fprintf(w, "%s %s, pushed %s.\n", verb, name, what.Pushed.Local().Format(time.DateTime)); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "%s %s (%s), %s, %s and %s, of %s.\n", verb, plural(r.BlobsRemoved, "blob"), sizeText(r.RemovedBytes),
		plural(r.Links, "link"), plural(r.Tags, "tag"), plural(r.Manifests, "manifest"), plural(r.Blobs, "blob"))
	return err
}

// whichStorage declares the flags that tell the registry's storage to verbs about it.
func (f *serveFlags) whichStorage(cmd *cobra.Command) *pflag.FlagSet {
	cmd.DisableFlagsInUseLine = true
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVarP(&f.config, "config", "c", "", "read the registry's configuration from `FILE`")
	flags.StringVar(&f.storage, "storage", "", "where the registry keeps everything: `DIR` or s3://BUCKET/PREFIX")
	return flags
}

func (a *app) serveGCCommand() *cobra.Command {
	var f serveFlags
	var grace, format string
	var dryRun, untagged bool
	cmd := &cobra.Command{
		Use:   "gc [flags]",
		Short: "Remove what no manifest of a registry names",
		Long: `Remove the blobs of a registry's storage that no manifest names, and the tags and
manifests that the configuration's rules of retention do not keep. The registry may
go on working meanwhile, and so may others on the same storage. tare serve does
the same by itself, now and then.`,
		Example: `  tare serve gc --dry-run
  tare serve gc --storage /srv/registry --grace 1h --untagged`,
		Args: arguments(0, 0, ""),
	}
	flags := f.whichStorage(cmd)
	flags.StringVar(&grace, "grace", "", "spare what is younger than `DURATION`, such as 12h or 30d (default 1d)")
	flags.BoolVar(&untagged, "untagged", false, "also remove manifests that no tag leads to")
	flags.BoolVarP(&dryRun, "dry-run", "n", false, "only tell what would be removed")
	formatFlag(cmd, &format, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.serveConfig(flags, f)
		if err != nil {
			return err
		}
		if grace != "" {
			if c.GC.Grace, err = config.ParseDuration(grace); err != nil {
				return usageError{fmt.Errorf("--grace: %w", err)}
			}
		}
		c.GC.Untagged = c.GC.Untagged || untagged
		s, err := service.New(c, a.stderr, a.getenv)
		if err != nil {
			return fmt.Errorf("serve gc: %w", err)
		}
		report, err := a.collect(cmd.Context(), s, dryRun)
		if err != nil {
			return fmt.Errorf("serve gc: %w", err)
		}
		if format == "json" {
			return printJSON(a.stdout, report)
		}
		return report.print(a.stdout, dryRun)
	}
	return cmd
}
