package runtimecli

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

func psCommand() command {
	return command{name: "ps", args: "ID [PS OPTION…]", short: "list the processes of a container", min: 1, max: math.MaxInt, verbatim: true,
		flags: func(flags *flag.FlagSet) func(*call) (int, error) {
			format := flags.String("format", "table", "table, which is what ps(1) prints (with -ef), or json: their ids")
			flags.StringVar(format, "f", "table", "short for --format")
			return func(c *call) (int, error) {
				pids, err := c.store().Processes(c.args[0])
				if err != nil {
					return 1, err
				}
				switch *format {
				case "json":
					return 0, json.NewEncoder(os.Stdout).Encode(append([]int{}, pids...)) // never null
				case "table":
					return 0, printProcesses(os.Stdout, pids, c.args[1:])
				}
				return 1, fmt.Errorf("--format %q: want table or json", *format)
			}
		}}
}

// printProcesses runs ps(1) and passes on the lines of some processes.
func printProcesses(w io.Writer, pids []int, options []string) error {
	if len(options) == 0 {
		options = []string{"-ef"}
	}
	out, err := exec.Command("ps", options...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ps %s: %w: %s", strings.Join(options, " "), err, out)
	}
	title, rows, _ := strings.Cut(string(out), "\n")
	column := slices.Index(strings.Fields(title), "PID")
	if column < 0 {
		return errors.New("couldn't find PID field in ps output")
	}
	var text strings.Builder
	fmt.Fprintln(&text, title)
	for row := range strings.Lines(rows) {
		fields := strings.Fields(row)
		if len(fields) <= column {
			continue
		}
		pid, err := strconv.Atoi(fields[column])
		if err != nil {
			return fmt.Errorf("unable to parse pid: %w", err)
		}
		if slices.Contains(pids, pid) {
			text.WriteString(row)
		}
	}
	_, err = io.WriteString(w, text.String())
	return err
}
