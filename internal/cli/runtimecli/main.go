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

// global are the flags before the verb.
type global struct {
	root          string
	logFile       string
	logFormat     string
	debug         bool
	systemdCgroup bool
	rootless      string
	cgroupManager string
}

func (c *call) store() lifecycle.Store { return lifecycle.Store{Root: c.root} }

func commands() []command {
	return []command{
		createCommand(), runCommand(), startCommand(), stateCommand(), killCommand(), deleteCommand(), listCommand(), specCommand(),
		execCommand(), psCommand(),
		pauseCommand(), resumeCommand(), updateCommand(), eventsCommand(),
	}
}

// Main runs tare-runtime with its arguments and returns its exit status.
func Main(args []string) int {
	calmMonitor()
	var g global
	flags := flag.NewFlagSet("tare-runtime", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&g.root, "root", "", "directory of the containers' `state` (default "+systemRoot+", or a user's $XDG_RUNTIME_DIR/tare-runtime)")
	flags.StringVar(&g.logFile, "log", "", "`file` to log to instead of standard error")
	flags.StringVar(&g.logFormat, "log-format", "text", "text or json")
	flags.BoolVar(&g.debug, "debug", false, "log more")
	flags.BoolVar(&g.systemdCgroup, "systemd-cgroup", false, "manage control groups through systemd")
	flags.StringVar(&g.cgroupManager, "cgroup-manager", "cgroupfs", "cgroupfs, systemd or disabled")
	flags.StringVar(&g.rootless, "rootless", "auto", "true, false or auto")
	showVersion := flags.Bool("version", false, "print the version")
	flags.BoolVar(showVersion, "v", false, "print the version")
	if err := flags.Parse(args); err != nil {
		return usage(flags, err)
	}
	if *showVersion {
		return printVersion()
	}
	if flags.NArg() == 0 || flags.Arg(0) == "help" {
		return usage(flags, flag.ErrHelp)
	}
	for _, c := range commands() {
		if c.name == flags.Arg(0) {
			return c.main(g, flags.Args()[1:])
		}
	}
	return usage(flags, fmt.Errorf("no such command: %s", flags.Arg(0)))
}

func (cmd command) main(g global, args []string) int {
	log, err := newLogger(g)
	if err != nil {
		fmt.Fprintln(os.Stderr, "tare-runtime:", err)
		return 1
	}
	defer log.close()
	flags := flag.NewFlagSet(cmd.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	run := cmd.flags(flags)
	if cmd.verbatim {
		err = flags.Parse(args)
		args = flags.Args()
	} else {
		args, err = parseAnywhere(flags, args, cmd.min)
	}
	if err == nil && (len(args) < cmd.min || len(args) > cmd.max) {
		err = fmt.Errorf("%q requires %d argument(s), got %d", "tare-runtime "+cmd.name, cmd.min, len(args))
	}
	if errors.Is(err, flag.ErrHelp) {
		cmd.help(flags)
		return 0
	}
	if err == nil && g.systemdCgroup || g.cgroupManager == "systemd" {
		err = errors.New("the systemd cgroup driver is not supported: use --cgroup-manager=cgroupfs")
	}
	if err == nil && g.root == "" {
		g.root, err = defaultRoot()
	}
	if err != nil {
		log.error(err)
		return 1
	}
	status, err := run(&call{Context: context.Background(), global: g, args: args, log: log})
	if err != nil {
		log.error(err)
		return max(status, 1)
	}
	return status
}

// parseAnywhere parses flags before and between the first min arguments, as
// engines write them: "delete ID --force" and "kill --all ID 9".
func parseAnywhere(flags *flag.FlagSet, args []string, min int) ([]string, error) {
	var rest []string
	for {
		if err := flags.Parse(args); err != nil {
			return nil, err
		}
		args = flags.Args()
		if len(args) == 0 {
			return rest, nil
		}
		rest, args = append(rest, args[0]), args[1:]
	}
}

func (cmd command) help(flags *flag.FlagSet) {
	fmt.Printf("Usage: tare-runtime %s [flags] %s\n\n%s\n", cmd.name, cmd.args, cmd.short)
	printFlags(flags)
}

func printFlags(flags *flag.FlagSet) {
	any := false
	flags.VisitAll(func(*flag.Flag) { any = true })
	if any {
		fmt.Println("\nFlags:")
		flags.SetOutput(os.Stdout)
		flags.PrintDefaults()
	}
}

func usage(flags *flag.FlagSet, err error) int {
	if !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "tare-runtime: %v\nSee tare-runtime --help.\n", err)
		return 1
	}
	fmt.Print("tare-runtime runs containers from OCI bundles.\n\nUsage: tare-runtime [flags] COMMAND\n\nCommands:\n")
	for _, c := range commands() {
		fmt.Printf("  %-8s %s\n", c.name, c.short)
	}
	printFlags(flags)
	return 0
}

// printVersion prints what dockerd parses: the name, "commit:" and "spec:".
func printVersion() int {
	fmt.Printf("tare-runtime version %s\ncommit: %s\nspec: %s\ngo: %s\n", version.Version, version.Commit(), version.RuntimeSpec, version.Go())
	return 0
}
