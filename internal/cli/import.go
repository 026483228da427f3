package cli

import (
	"errors"
	"fmt"
	"os"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/image/mutate"
	"github.com/tare-oci/tare/image/transfer"
)

func (a *app) importCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import [flags] FILE IMAGE",
		Short: "Make an image of the tar archive of a root file system",
		Long: `Make an image of the tar archive of a root file system, compressed or not, which
becomes its only layer; FILE may be - for standard input. A change is written as in
a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME,
WORKDIR. With SOURCE_DATE_EPOCH set the same archive makes the same image. The
image's digest is printed.

` + transportsHelp,
		Example: `  tare import -c 'CMD ["/bin/sh"]' rootfs.tar.gz app:v1
  debootstrap stable root && tar -C root -c . | tare import -m bootstrapped - debian:mine`,
		Args: arguments(2, 2, "FILE and IMAGE"),
	}
	f := cmd.Flags()
	changes := f.StringArrayP("change", "c", nil, "apply a Dockerfile `INSTRUCTION` to the configuration")
	message := f.StringP("message", "m", "", "write `TEXT` into the history")
	platform := platformFlag(f)
	quiet := f.BoolP("quiet", "q", false, "no progress, only the digest")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a.quiet = a.quiet || *quiet
		o, err := a.importOptions(*changes, *message, platform)
		if err != nil {
			return err
		}
		from, path := a.stdin, "standard input"
		if args[0] != "-" {
			path = args[0]
			if from, err = os.Open(path); err != nil {
				return err
			}
			defer from.Close()
		} else if isTerminal(from) {
			return usageError{errors.New("no archive comes from a terminal: use a pipe, or name a file")}
		}
		e, err := a.engine()
		if err != nil {
			return err
		}
		defer e.Close()
		var r transfer.Result
		err = a.showTransfer("Importing "+path, func(p transfer.Progress) (err error) {
			o.Progress = p
			r, err = e.Import(cmd.Context(), path, from, args[1], o)
			return err
		})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(a.stdout, r.Root.Digest)
		return err
	}
	return cmd
}

func (a *app) importOptions(changes []string, message string, platform func() (*v1.Platform, error)) (o engine.ImportOptions, err error) {
	o.Message, o.Created = message, time.Now()
	if s := a.getenv("SOURCE_DATE_EPOCH"); s != "" {
		if o.Created, err = mutate.ParseTime(s); err != nil {
			return o, usageError{fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)}
		}
	}
	if o.Platform, err = platform(); err != nil {
		return o, err
	}
	edits, err := mutate.ParseInstructions(changes)
	if err != nil {
		return o, usageError{err}
	}
	o.Config = func(c *v1.Image) {
		for _, edit := range edits {
			edit(c)
		}
	}
	return o, nil
}
