// Package cli is the command line of tare: one file for each verb, which turns
// flags into a call of package engine and prints what comes back.
//
// What a verb was asked for goes to standard output; progress, warnings and
// errors go to standard error. It implements no part of a specification; the
// verbs and flags have the names that docker and podman gave them.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/internal/version"
)

// app is what the verbs share: the streams and the flags before the verb.
type app struct {
	stdin, stdout, stderr *os.File
	getenv                func(string) string

	root      string
	logFormat string
	quiet     bool

	warnings registryWarnings

	// release leaves signals to others: to a container that runs.
	release func()
}

// Main runs tare with its arguments and returns its exit status.
func Main(args []string) int {
	ctx, stop := withSignals(context.Background())
	defer stop()
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv, release: stop}
	root := a.command()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if sig, ok := errors.AsType[interrupted](context.Cause(ctx)); ok && err != nil {
		err = exitError{status: statusInterrupted + int(sig.Signal), err: sig}
	}
	return a.finish(cmd, err)
}

// interrupted is why a context ended: a signal came.
type interrupted struct{ syscall.Signal }

func (i interrupted) Error() string {
	if i.Signal == syscall.SIGINT {
		return "interrupted"
	}
	return "interrupted: " + i.Signal.String()
}

// withSignals ends the context at the first signal, so that all that is under
// way ends in good order. The second has its usual effect.
func withSignals(parent context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		sig := <-signals
		signal.Stop(signals)
		cancel(interrupted{sig.(syscall.Signal)})
	}()
	return ctx, func() { signal.Stop(signals) }
}

const rootLong = `tare pulls, inspects, unpacks and runs OCI containers: one static program,
no daemon, nothing to install.

  tare demo                            see all of it work, in a second, offline
  tare run -it debian:12               run a shell in Debian
  tare run --rm alpine echo hello      run one command
  tare pull debian:12                  fetch an image, run it later
  tare images                          what is here

Images are named as docker names them: debian is docker.io/library/debian:latest,
registry.example.com:5000/team/app:v1 is what it says, and oci:DIR:TAG is an
image layout in a directory.

What tare keeps is below /var/lib/tare, or for other users than root below
$XDG_DATA_HOME/tare; --root or TARE_ROOT moves all of it. The images are an
ordinary OCI image layout, which other tools read too.`

// command builds the command tree.
func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:           "tare COMMAND",
		Short:         "Pull, inspect, unpack and run OCI containers",
		Long:          rootLong,
		Version:       version.Version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          unknownCommand,

		SuggestionsMinimumDistance: 2,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if a.logFormat != "text" && a.logFormat != "json" {
				return usageError{fmt.Errorf("--log-format %q: want text or json", a.logFormat)}
			}
			return nil
		},
	}
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetVersionTemplate("tare version {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	flags := root.PersistentFlags()
	flags.StringVar(&a.root, "root", "", "keep everything below `DIR`, as TARE_ROOT does")
	flags.StringVar(&a.logFormat, "log-format", "text", "write messages as `FORMAT`: text or json")
	flags.BoolVarP(&a.quiet, "quiet", "", false, "no progress, only results and errors")
	flags.SortFlags = false
	a.addVerbs(root)
	a.setHelp(root)
	return root
}

// addVerbs groups the verbs as the help shows them.
func (a *app) addVerbs(root *cobra.Command) {
	groups := []struct {
		id, title string
		verbs     []*cobra.Command
	}{
		{"run", "Containers:", []*cobra.Command{a.runCommand(), a.psCommand(), a.rmCommand(), a.commitCommand(), a.explainCommand()}},
		{"image", "Images:", []*cobra.Command{a.imagesCommand(), a.inspectCommand(), a.historyCommand(), a.tagCommand(), a.unpackCommand(),
			a.rmiCommand(), a.gcCommand(), a.fsckCommand()}},
		{"transfer", "From place to place:", []*cobra.Command{a.pullCommand(), a.pushCommand(), a.copyCommand(), a.saveCommand(), a.loadCommand(),
			a.importCommand(), a.exportCommand()}},
		{"edit", "New images from old ones:", []*cobra.Command{a.repackCommand(), a.configCommand(), a.mutateCommand(), a.newCommand(), a.indexCommand()}},
		{"contents", "Inside images:", []*cobra.Command{a.layersCommand(), a.lsCommand(), a.catCommand(), a.diffCommand()}},
		{"registry", "Registries:", []*cobra.Command{
			a.loginCommand(), a.logoutCommand(), a.tagsCommand(), a.reposCommand(), a.syncCommand(), a.deleteCommand(),
			a.artifactCommand(), a.attachCommand(), a.discoverCommand(), a.serveCommand(),
		}},
		{"other", "More:", []*cobra.Command{a.demoCommand(), a.versionCommand(), a.manCommand()}},
	}
	cobra.EnableCommandSorting = false // the order here is the help's
	for _, g := range groups {
		root.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
		for _, verb := range g.verbs {
			verb.GroupID = g.id
			verb.DisableFlagsInUseLine = true
			verb.Flags().SortFlags = false
			root.AddCommand(verb)
		}
	}
	root.AddCommand(a.greetCommand())
	completePlatforms(root)
	root.SetHelpCommandGroupID("other")
	root.SetCompletionCommandGroupID("other")
}

// unknownCommand is for words that are no verb.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fmt.Errorf("no such command: %s", args[0])
	if similar := cmd.SuggestionsFor(args[0]); len(similar) > 0 {
		err = fmt.Errorf("%w; did you mean %s?", err, strings.Join(similar, " or "))
	}
	return usageError{err}
}

// arguments checks the number of a verb's arguments; names are how the usage
// calls them.
func arguments(min, max int, names string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < min:
			return usageError{fmt.Errorf("missing argument: want %s", names)}
		case max >= 0 && len(args) > max && max == 0:
			return usageError{fmt.Errorf("unexpected argument %q: %s takes none", args[0], cmd.CommandPath())}
		case max >= 0 && len(args) > max:
			return usageError{fmt.Errorf("unexpected argument %q: want only %s", args[max], names)}
		}
		return nil
	}
}
