package cli

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/engine/transport"
)

func (a *app) runCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run [flags] IMAGE [COMMAND [ARG...]]",
		Short: "Run a command in a new container",
		Long: `Run a command in a new container, in the foreground: its output is tare's output,
signals go to it, and its exit status becomes tare's. An image that is not here is
pulled first. With --rm the container is removed when it has ended; otherwise tare
ps -a shows it, tare diff and tare commit look into it, and tare rm removes it.

Flags end at IMAGE; what follows is the command's. Exit statuses of tare itself are
125 (the container could not be made), 126 (the command cannot be executed) and
127 (there is no such command).`,
		Example: `  tare run -it debian:12                        a shell
  tare run --rm alpine cat /etc/os-release      one command
  tare run -v /srv/data:/data:ro alpine ls      with files of this machine
  tare run -m 64m --cpus 0.5 --read-only alpine true
  tare run --runtime crun alpine true           with another OCI runtime
  tare run oci:dir:v1 true                      from an image layout in ./dir`,
		Args:              arguments(1, -1, "IMAGE"),
		ValidArgsFunction: a.completeImages(1),
	}
	f := declareRunFlags(cmd, true)
	cmd.Flags().SetInterspersed(false)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o, err := f.options(a, args)
		if err != nil {
			return err
		}
		o.Stdio = [3]*os.File{a.stdin, a.stdout, a.stderr}
		if o.Terminal && o.Interactive && !term.IsTerminal(int(a.stdin.Fd())) {
			return usageError{errors.New("-t: standard input is not a terminal")}
		}
		e, err := a.engine()
		if err != nil {
			return err
		}
		defer e.Close()
		if err := a.provide(cmd.Context(), e, &o, f); err != nil {
			return err
		}
		a.release() // from here on signals are the container's, see engine.Run
		status, err := e.Run(context.WithoutCancel(cmd.Context()), o)
		if err != nil {
			return exitError{engine.ExitStatus(err), err}
		}
		if status != 0 {
			return exitError{status: status}
		}
		return nil
	}
	return cmd
}

// provide sees to it that the image is in the store, as --pull says, with
// progress shown. What is in a layout elsewhere needs no pull, and where the
// engine is going to ask for root nothing is fetched in vain.
func (a *app) provide(ctx context.Context, e *engine.Engine, o *engine.RunOptions, f *runFlags) error {
	if isElsewhere(o.Image) || os.Geteuid() != 0 {
		return nil
	}
	_, err := e.Resolve(ctx, o.Image, o.Pull.Platform)
	missing := errors.Is(err, engine.ErrNoImage)
	switch {
	case f.pull == "never" && err != nil, err != nil && !missing:
		return err
	case f.pull == "always", missing:
		_, err = a.pull(ctx, e, o.Image, o.Pull, f.registry)
		return err
	}
	return nil
}

// isElsewhere says whether an image is named by where it lies, which is neither
// the store nor a registry: oci:DIR:TAG, say.
func isElsewhere(name string) bool {
	l, err := transport.Parse(name)
	return err == nil && l.Kind != transport.Plain && l.Kind != transport.Registry
}
