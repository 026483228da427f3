package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/distribution/server/config"
	"github.com/tare-oci/tare/distribution/server/service"
)

func (a *app) serveScrubCommand() *cobra.Command {
	var f serveFlags
	var rate, format string
	cmd := &cobra.Command{
		Use:   "scrub [flags]",
		Short: "Read all blobs of a registry, and quarantine rotten ones",
		Long: `Read all blobs of a registry's storage and compare them with their digests. Those
that are rotten are quarantined: they are as if they had never been pushed, until
somebody pushes them again. The registry may go on working meanwhile. What is read
at another time is gone on with where it was interrupted. The status is 1 if there
are rotten or unreadable blobs.`,
		Example: `  tare serve scrub --config /etc/tare/registry.toml
  tare serve scrub --storage /srv/registry --rate 50MiB`,
		Args: arguments(0, 0, ""),
	}
	flags := f.whichStorage(cmd)
	flags.StringVar(&rate, "rate", "", "read at most `SIZE` a second (default as fast as it goes)")
	formatFlag(cmd, &format, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.serveConfig(flags, f)
		if err != nil {
			return err
		}
		var bytesPerSecond config.Size
		if rate != "" {
			if bytesPerSecond, err = config.ParseSize(rate); err != nil {
				return usageError{fmt.Errorf("--rate: %w", err)}
			}
		}
		s, err := service.New(c, a.stderr, a.getenv)
		if err != nil {
			return fmt.Errorf("serve scrub: %w", err)
		}
		report, err := s.Scrub(cmd.Context(), int64(bytesPerSecond), 0)
		if err != nil {
			return fmt.Errorf("serve scrub: %w", err)
		}
		if format == "json" {
			err = printJSON(a.stdout, report)
		} else {
			_, err = fmt.Fprintf(a.stdout, "Read %s (%s): %d rotten, %d unreadable.\n", plural(report.Blobs, "good blob"), sizeText(report.Bytes), report.Rotten, report.Unreadable)
		}
		if bad := report.Rotten + report.Unreadable; err == nil && bad > 0 {
			err = fmt.Errorf("serve scrub: %s; the log above names them", plural(bad, "bad blob"))
		}
		return err
	}
	return cmd
}
