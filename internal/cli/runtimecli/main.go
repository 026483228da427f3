// Package runtimecli is the command line of tare-runtime: runc's verbs, flags,
// log format and exit statuses, one file for a group of verbs. It implements
// the operations of runtime.md in the Runtime Spec.
//
// Its start-up time is part of every container's, so it uses package flag and
// links neither HTTP nor TLS.
package runtimecli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/tare-oci/tare/internal/version"
	"github.com/tare-oci/tare/runtime/lifecycle"
)

// A command is one verb.
type command struct {
	name  string
	args  string // in the usage line
	short string
	min   int // number of arguments
	max   int
	// verbatim leaves all that follows the first argument alone: it belongs to
	// another program.
	verbatim bool
	// stateless verbs have nothing to do with containers that there are.
	stateless bool
	// flags declares the verb's flags and returns what runs it.
	flags func(*flag.FlagSet) func(*call) (status int, err error)
}

// A call is one run of a verb.
type call struct {
	context.Context
	global
	args []string
	log  *logger
}

func (c *call) store() lifecycle.Store { return lifecycle.Store{Root: c.root, Warn: c.log.warn} }

func commands() []command {
	return []command{
		createCommand(), runCommand(), startCommand(), stateCommand(), killCommand(), deleteCommand(), listCommand(), specCommand(),
		execCommand(), psCommand(),
		pauseCommand(), resumeCommand(), updateCommand(), checkpointCommand(), restoreCommand(), featuresCommand(), completionCommand(), manCommand(), eventsCommand(),
	}
}

// exitNoCommand is runc's status where there is no such command.
const exitNoCommand = 3

// Main runs tare-runtime with its arguments and returns its exit status.
func Main(args []string) int {
	settle()
	var g global
	flags := g.flags()
	parseErr := flags.Parse(args)
	log, err := newLogger(g)
	defer log.close()
	if parseErr != nil {
		err = parseErr
	}
	switch {
	case errors.Is(err, flag.ErrHelp) || err == nil && !g.version && flags.NArg() == 0:
		mainHelp(os.Stdout, flags)
		return 0
	case parseErr != nil:
		fmt.Printf("Incorrect Usage. %v\n\n", err)
		mainHelp(os.Stdout, flags)
	case g.version:
		return printVersion()
	case err == nil:
		err = g.check(flags)
	}
	if err != nil {
		log.error(err)
		return 1
	}
	if g.criu != "" {
		log.warn("--criu " + g.criu + " is ignored: CRIU is found in $PATH")
	}
	return g.dispatch(log, flags)
}

// dispatch runs the verb.
func (g global) dispatch(log *logger, flags *flag.FlagSet) int {
	name, args := flags.Arg(0), flags.Args()[1:]
	help := name == "help" || name == "h"
	if help && len(args) == 0 {
		mainHelp(os.Stdout, flags)
		return 0
	}
	if help {
		name = args[0]
	}
	for _, c := range commands() {
		switch {
		case c.name != name:
		case help:
			c.help(os.Stdout)
			return 0
		default:
			return c.main(g, log, args)
		}
	}
	//lint:ignore ST1005 runc's words
	log.error(fmt.Errorf("No help topic for '%s'", name))
	return exitNoCommand
}

func (cmd command) main(g global, log *logger, args []string) int {
	flags := flag.NewFlagSet(cmd.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	run := cmd.flags(flags)
	var err error
	if cmd.verbatim {
		err = flags.Parse(args)
		args = flags.Args()
	} else {
		args, err = parseAnywhere(flags, args)
	}
	wrong := ""
	switch {
	case errors.Is(err, flag.ErrHelp):
		cmd.help(os.Stdout)
		return 0
	case err != nil:
		wrong = ": " + err.Error()
	default:
		if err = cmd.count(args); err != nil {
			wrong = "."
		}
	}
	if err != nil {
		fmt.Printf("Incorrect Usage%s\n\n", wrong)
		cmd.help(os.Stdout)
		log.error(err)
		return 1
	}
	if !cmd.stateless {
		if err := g.findRoot(); err != nil {
			log.error(err)
			return 1
		}
	}
	if debug := log.debugger(); debug != nil {
		debug(fmt.Sprintf("%s %s, state in %s: %s %q", program, version.Version, g.root, cmd.name, args))
	}
	status, err := run(&call{Context: context.Background(), global: g, args: args, log: log})
	if err != nil {
		log.error(err)
		return max(status, 1)
	}
	return status
}

// count refuses too few or too many arguments.
func (cmd command) count(args []string) error {
	kind, want := "exactly", cmd.min
	switch n := len(args); {
	case n >= cmd.min && n <= cmd.max:
		return nil
	case cmd.min == cmd.max:
	case n < cmd.min:
		kind = "a minimum of"
	default:
		kind, want = "a maximum of", cmd.max
	}
	return fmt.Errorf("%s: %q requires %s %d argument(s)", program, cmd.name, kind, want)
}

// parseAnywhere parses flags before, between and behind the arguments, as
// engines write them: "delete ID --force" and "kill --all ID 9". Behind "--"
// there are none.
func parseAnywhere(flags *flag.FlagSet, args []string) ([]string, error) {
	var rest, verbatim []string
	if i := slices.Index(args, "--"); i >= 0 {
		args, verbatim = args[:i], args[i+1:]
	}
	for {
		if err := flags.Parse(args); err != nil {
			return nil, err
		}
		args = flags.Args()
		if len(args) == 0 {
			return append(rest, verbatim...), nil
		}
		rest, args = append(rest, args[0]), args[1:]
	}
}

// printVersion prints what dockerd parses: the name, "commit:" and "spec:".
func printVersion() int {
	fmt.Printf("tare-runtime version %s\ncommit: %s\nspec: %s\ngo: %s\n", version.Version, version.Commit(), version.RuntimeSpec, version.Go())
	return 0
}
