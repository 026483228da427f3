package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
)

// exitError ends tare with a status of its own. Without an error it says
// nothing: a container's status is no message of ours.
type exitError struct {
	status int
	err    error
}

func (e exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

func (e exitError) Unwrap() error { return e.err }

// usageError is a mistake on the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// Exit statuses as docker and podman have them: what run itself cannot do must
// differ from what a container's program returns (see engine.ExitStatus).
const (
	statusFailure     = 1
	statusUsage       = 2
	statusDamaged     = 4
	statusRunFailure  = 125
	statusInterrupted = 128 // and the signal's number
)

// finish prints the error, once, with a hint where there is one, and returns
// the exit status.
func (a *app) finish(cmd *cobra.Command, err error) int {
	if !a.quiet {
		for _, text := range a.warnings.list() {
			a.warn(text)
		}
	}
	if err == nil {
		return 0
	}
	status := statusFailure
	exit, hasStatus := errors.AsType[exitError](err)
	_, isUsage := errors.AsType[usageError](err)
	switch {
	case hasStatus:
		status = exit.status
	case cmd.Name() == "run":
		status = statusRunFailure
	case isUsage:
		status = statusUsage
	}
	if hasStatus && exit.err == nil {
		return status
	}
	help := hintFor(err)
	if isUsage {
		help = fmt.Sprintf("see %s --help", cmd.CommandPath())
	}
	a.message("error", err.Error(), help)
	return status
}

// info tells what goes on, unless the user wants quiet.
func (a *app) info(format string, args ...any) {
	if !a.quiet {
		a.message("info", fmt.Sprintf(format, args...), "")
	}
}

func (a *app) warn(text string) { a.message("warning", text, "") }

// message writes to standard error: a line for people, or a JSON object.
func (a *app) message(level, text, hint string) {
	if a.logFormat == "json" {
		data, err := json.Marshal(struct {
			Time  string `json:"time"`
			Level string `json:"level"`
			Msg   string `json:"msg"`
			Hint  string `json:"hint,omitempty"`
		}{time.Now().UTC().Format(time.RFC3339Nano), level, strings.TrimSpace(text), hint})
		if err == nil {
			fmt.Fprintf(a.stderr, "%s\n", data)
		}
		return
	}
	color := wantsColor(a.stderr, a.getenv)
	text = printableLines(text)
	switch level {
	case "error":
		fmt.Fprintf(a.stderr, "%s %s\n", paint("tare:", red, color), text)
	case "warning":
		fmt.Fprintf(a.stderr, "%s %s\n", paint("warning:", yellow, color), text)
	default:
		fmt.Fprintln(a.stderr, text)
	}
	if hint != "" {
		fmt.Fprintf(a.stderr, "%s %s\n", paint("hint:", cyan, color), hint)
	}
}

// printableLines is printable for texts of several lines.
func printableLines(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i, l := range lines {
		lines[i] = printable(strings.ReplaceAll(l, "\t", "  "))
	}
	return strings.Join(lines, "\n")
}

// registryWarnings are what registries want people to know. They are kept for the
// end, so that they stand beneath the bars of what goes on.
type registryWarnings struct {
	mu  sync.Mutex
	all []string
}

const maxRegistryWarnings = 20

// add keeps a warning, once.
func (r *registryWarnings) add(host, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	text = "registry " + host + ": " + text
	if len(r.all) < maxRegistryWarnings && !slices.Contains(r.all, text) {
		r.all = append(r.all, text)
	}
}

func (r *registryWarnings) list() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}
