package runtimecli

import (
	"errors"
	"flag"
	"fmt"
	"strconv"
	"strings"

	"github.com/tare-oci/tare/runtime/criu"
	"github.com/tare-oci/tare/runtime/foreground"
	"github.com/tare-oci/tare/runtime/lifecycle"
)

// criuFlags are those that checkpoint and restore share. The function returned
// completes the options.
func criuFlags(flags *flag.FlagSet) (o *lifecycle.CheckpointOptions, complete func() error) {
	o = &lifecycle.CheckpointOptions{}
	flags.StringVar(&o.Images, "image-path", "", "`directory` of the checkpoint (default: checkpoint)")
	flags.StringVar(&o.Work, "work-path", "", "`directory` of CRIU's log")
	flags.BoolVar(&o.CRIU.TCPEstablished, "tcp-established", false, "save and restore open TCP connections")
	flags.BoolVar(&o.CRIU.ExtUnixSk, "ext-unix-sk", false, "let unix sockets be connected to others outside")
	flags.BoolVar(&o.CRIU.ShellJob, "shell-job", false, "let the session and the terminal be others'")
	flags.BoolVar(&o.CRIU.FileLocks, "file-locks", false, "save and restore file locks")
	flags.BoolVar(&o.CRIU.AutoDedup, "auto-dedup", false, "keep each page of memory once in a chain of checkpoints")
	mode := flags.String("manage-cgroups-mode", "", "`mode` for control groups: soft, full, strict or ignore")
	lazy := flags.Bool("lazy-pages", false, "refused: memory is not moved after the restore")
	flags.Func("empty-ns", "make a `namespace` without what is in it: network", func(s string) error {
		if s != "network" {
			return fmt.Errorf("namespace %q is not supported", s)
		}
		return nil // as it is in any case
	})
	return o, func() (err error) {
		if *lazy {
			return errors.New("--lazy-pages is not supported")
		}
		if o.Images == "" {
			o.Images = "checkpoint"
		}
		o.CRIU.Cgroups, err = criu.ParseCgroupMode(*mode)
		return err
	}
}

func checkpointCommand() command {
	return command{name: "checkpoint", args: "ID", short: "save a running container with CRIU", min: 1, max: 1,
		flags: func(flags *flag.FlagSet) func(*call) (int, error) {
			o, complete := criuFlags(flags)
			flags.StringVar(&o.CRIU.Parent, "parent-path", "", "`directory` of an earlier pre-dump, relative to --image-path")
			flags.BoolVar(&o.CRIU.LeaveRunning, "leave-running", false, "let the container run on")
			flags.BoolVar(&o.CRIU.TCPSkipInFlight, "tcp-skip-in-flight", false, "leave out connections that are being made")
			flags.BoolVar(&o.CRIU.LinkRemap, "link-remap", false, "give deleted files a name while they are saved")
			flags.BoolVar(&o.PreDump, "pre-dump", false, "save the memory only, and let the container run on")
			server := flags.String("page-server", "", "`ADDRESS:PORT` that takes the memory instead of files")
			flags.Int("status-fd", -1, "`descriptor` for --lazy-pages")
			return func(c *call) (int, error) {
				if err := complete(); err != nil {
					return 1, err
				}
				if err := pageServer(*server, &o.CRIU.PageServer); err != nil {
					return 1, err
				}
				return 0, c.store().Checkpoint(c, c.args[0], *o)
			}
		}}
}

func pageServer(s string, to *criu.PageServer) error {
	if s == "" {
		return nil
	}
	// Not package net, which would be a tenth of this program.
	colon := strings.LastIndexByte(s, ':')
	if colon <= 0 || colon == len(s)-1 {
		//lint:ignore ST1005 runc's words
		return errors.New("Use --page-server ADDRESS:PORT to specify page server")
	}
	n, err := strconv.ParseUint(s[colon+1:], 10, 16)
	if err != nil {
		//lint:ignore ST1005 runc's words
		return errors.New("Invalid port number")
	}
	*to = criu.PageServer{Address: strings.Trim(s[:colon], "[]"), Port: int(n)}
	return nil
}

func restoreCommand() command {
	return command{name: "restore", args: "ID", short: "bring back a container that checkpoint has saved", min: 1, max: 1,
		flags: func(flags *flag.FlagSet) func(*call) (int, error) {
			from, complete := criuFlags(flags)
			o := createFlags(flags)
			detach := flags.Bool("detach", false, "do not wait for the container to end")
			flags.BoolVar(detach, "d", false, "short for --detach")
			flags.Bool("no-subreaper", false, "ignored: there is none")
			flags.StringVar(&from.CRIU.LSMProfile, "lsm-profile", "", "`TYPE:NAME` of the security profile instead of the saved one")
			flags.StringVar(&from.CRIU.LSMMountContext, "lsm-mount-context", "", "SELinux `context` of mounts instead of the saved one")
			return func(c *call) (int, error) {
				if err := complete(); err != nil {
					return 1, err
				}
				c.fill(o)
				if !*detach {
					return foreground.Restore(c, c.store(), *o, *from)
				}
				_, err := c.store().Restore(c, *o, *from)
				return 0, err
			}
		}}
}
