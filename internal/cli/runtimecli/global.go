package runtimecli

import (
	"errors"
	"flag"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/tare-oci/tare/runtime/cgroup"
)

// global are the flags before the verb.
type global struct {
	root          string
	rootGiven     bool
	logFile       string
	logFormat     string
	debug         bool
	systemdCgroup bool
	rootless      triState
	cgroupManager string
	version       bool
	criu          string
}

func (g *global) flags() *flag.FlagSet {
	flags := flag.NewFlagSet(program, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&g.root, "root", "", "`directory` of the containers' state: $XDG_RUNTIME_DIR/tare-runtime without root's privileges, else "+systemRoot)
	flags.StringVar(&g.logFile, "log", "", "`file` to log to besides standard error")
	flags.StringVar(&g.logFormat, "log-format", "text", "`format` of the log: text or json")
	flags.BoolVar(&g.debug, "debug", false, "log what is done")
	flags.BoolVar(&g.systemdCgroup, "systemd-cgroup", false, "make control groups through systemd; cgroupsPath is then slice:prefix:name")
	flags.StringVar(&g.cgroupManager, "cgroup-manager", string(cgroup.Cgroupfs), "`manager` of control groups: cgroupfs, systemd or disabled")
	flags.Var(&g.rootless, "rootless", "do without control groups that we may not make: true, false or auto")
	flags.StringVar(&g.criu, "criu", "", "ignored, as it is by runc: CRIU is found in $PATH")
	flags.BoolVar(&g.version, "version", false, "print the version")
	flags.BoolVar(&g.version, "v", false, "short for --version")
	return flags
}

// check completes the flags that are more than they say.
func (g *global) check(flags *flag.FlagSet) (err error) {
	if g.systemdCgroup {
		g.cgroupManager = "systemd"
	}
	flags.Visit(func(f *flag.Flag) { g.rootGiven = g.rootGiven || f.Name == "root" })
	if !g.rootGiven {
		return nil
	}
	if g.root, err = filepath.Abs(g.root); err == nil && g.root == "/" {
		//lint:ignore ST1005 runc's words
		err = errors.New("Option --root argument should not be set to /")
	}
	return err
}

// findRoot finds the directory of state for a verb that has to do with it.
func (g *global) findRoot() (err error) {
	if !g.rootGiven {
		g.root, err = defaultRoot()
	}
	return err
}

// triState is the value of --rootless.
type triState struct{ is *bool }

// String is the flag's value.
func (t *triState) String() string {
	if t.is == nil {
		return "auto"
	}
	return strconv.FormatBool(*t.is)
}

// Set reads true, false, or auto, which is the same as nothing.
func (t *triState) Set(s string) error {
	if s == "" || strings.EqualFold(s, "auto") {
		t.is = nil
		return nil
	}
	b, err := strconv.ParseBool(s)
	if err != nil {
		return errors.New("want true, false or auto")
	}
	t.is = &b
	return nil
}
