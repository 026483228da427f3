package runtimecli

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/quickjson"
	"github.com/tare-oci/tare/runtime/lifecycle"
	"github.com/tare-oci/tare/runtime/linux"
	"github.com/tare-oci/tare/runtime/spec"
)

func startCommand() command {
	return command{name: "start", args: "ID", short: "run the program of a created container", min: 1, max: 1,
		flags: func(*flag.FlagSet) func(*call) (int, error) {
			return func(c *call) (int, error) {
				return 0, c.store().StartNotifying(c, c.args[0], os.Getenv("NOTIFY_SOCKET"))
			}
		}}
}

func stateCommand() command {
	return command{name: "state", args: "ID", short: "print the state of a container", min: 1, max: 1,
		flags: func(*flag.FlagSet) func(*call) (int, error) {
			return func(c *call) (int, error) {
				container, err := c.store().Load(c.args[0])
				if err != nil {
					return 1, err
				}
				return 0, printJSON(container.AppendJSON(nil, ""))
			}
		}}
}

func printJSON(compact []byte) error {
	_, err := os.Stdout.Write(append(quickjson.AppendIndented(nil, compact), '\n'))
	return err
}

func killCommand() command {
	return command{name: "kill", args: "ID [SIGNAL]", short: "send a signal (SIGTERM) to a container's process", min: 1, max: 2,
		flags: func(flags *flag.FlagSet) func(*call) (int, error) {
			all := flags.Bool("all", false, "send it to all of its processes")
			flags.BoolVar(all, "a", false, "short for --all")
			return func(c *call) (int, error) {
				sig := unix.SIGTERM
				if len(c.args) > 1 {
					n, err := linux.Signal(c.args[1])
					if err != nil {
						return 1, err
					}
					sig = unix.Signal(n)
				}
				return 0, c.store().Kill(c, c.args[0], sig, *all)
			}
		}}
}

func deleteCommand() command {
	return command{name: "delete", args: "ID", short: "delete a container that has stopped", min: 1, max: 1,
		flags: func(flags *flag.FlagSet) func(*call) (int, error) {
			force := flags.Bool("force", false, "end it first; it is no error that it does not exist")
			flags.BoolVar(force, "f", false, "short for --force")
			return func(c *call) (int, error) { return 0, c.store().Delete(c, c.args[0], *force) }
		}}
}

func listCommand() command {
	return command{name: "list", short: "list the containers", min: 0, max: 0,
		flags: func(flags *flag.FlagSet) func(*call) (int, error) {
			format := flags.String("format", "table", "table or json")
			flags.StringVar(format, "f", "table", "short for --format")
			quiet := flags.Bool("quiet", false, "print the names only")
			flags.BoolVar(quiet, "q", false, "short for --quiet")
			return func(c *call) (int, error) {
				// As with runc, only the default directory need not be there.
				if _, err := os.Stat(c.root); err != nil && c.rootGiven {
					return 1, err
				}
				all, err := c.store().List()
				if err != nil {
					return 1, err
				}
				return 0, printList(all, *format, *quiet)
			}
		}}
}

func printList(all []*lifecycle.Container, format string, quiet bool) error {
	if quiet {
		for _, c := range all {
			fmt.Println(c.ID)
		}
		return nil
	}
	switch format {
	case "json":
		list := []byte{'['}
		for i, c := range all {
			if i > 0 {
				list = append(list, ',')
			}
			list = c.AppendJSON(list, owner(c))
		}
		_, err := os.Stdout.Write(append(list, ']', '\n'))
		return err
	case "table":
		w := tabwriter.NewWriter(os.Stdout, 12, 1, 3, ' ', 0)
		fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
		for _, c := range all {
			s := c.State()
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", s.ID, s.Pid, s.Status, s.Bundle, c.Created.Format(time.RFC3339Nano), owner(c))
		}
		return w.Flush()
	}
	return errors.New("invalid format option")
}

// owner is the name of the user who made a container, or the number.
func owner(c *lifecycle.Container) string {
	id := strconv.Itoa(c.UID)
	// Package os/user would link us to libc wherever cgo is not turned off.
	users, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return "#" + id // a machine without names
	}
	for line := range strings.Lines(string(users)) {
		if f := strings.Split(line, ":"); len(f) > 3 && f[2] == id {
			return f[0]
		}
	}
	return "#" + id
}

func specCommand() command {
	return command{name: "spec", short: "write an example config.json", min: 0, max: 0, stateless: true,
		flags: func(flags *flag.FlagSet) func(*call) (int, error) {
			bundle := flags.String("bundle", ".", "`directory` to write it to")
			flags.StringVar(bundle, "b", ".", "short for --bundle")
			rootless := flags.Bool("rootless", false, "for a container without root's privileges")
			return func(*call) (int, error) {
				data, err := json.MarshalIndent(spec.Example(*rootless), "", "\t")
				if err != nil {
					return 1, err
				}
				path := filepath.Join(*bundle, "config.json")
				f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
				if errors.Is(err, fs.ErrExist) {
					return 1, fmt.Errorf("%s exists: remove it first", path)
				}
				if err != nil {
					return 1, err
				}
				_, err = f.Write(append(data, '\n'))
				return 0, errors.Join(err, f.Close())
			}
		}}
}
