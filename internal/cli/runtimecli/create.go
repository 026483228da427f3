package runtimecli

import (
	"flag"
	"os"

	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/foreground"
	"github.com/tare-oci/tare/runtime/lifecycle"
)

// createFlags are those that create and run share.
func createFlags(flags *flag.FlagSet) *lifecycle.CreateOptions {
	o := &lifecycle.CreateOptions{}
	flags.StringVar(&o.Bundle, "bundle", ".", "`directory` with config.json and the root file system")
	flags.StringVar(&o.Bundle, "b", ".", "short for --bundle")
	flags.StringVar(&o.ConsoleSocket, "console-socket", "", "unix `socket` that receives the terminal")
	flags.StringVar(&o.PIDFile, "pid-file", "", "`file` to write the process id to")
	flags.IntVar(&o.PreserveFDs, "preserve-fds", 0, "pass `N` descriptors from 3 up to the container")
	flags.BoolVar(&o.NoNewKeyring, "no-new-keyring", false, "leave the session keyring as it is")
	flags.BoolVar(&o.NoPivot, "no-pivot", false, "leave the host's root beneath the container's: where / is the initial ramdisk")
	return o
}

func (c *call) fill(o *lifecycle.CreateOptions) {
	o.ID = c.args[0]
	o.Stdio = [3]*os.File{os.Stdin, os.Stdout, os.Stderr}
	o.Warn = c.log.warn
	o.CgroupManager, o.Rootless = cgroup.Driver(c.cgroupManager), c.rootless.is
}

func createCommand() command {
	return command{name: "create", args: "ID", short: "create a container and leave it waiting for start", min: 1, max: 1,
		flags: func(flags *flag.FlagSet) func(*call) (int, error) {
			o := createFlags(flags)
			return func(c *call) (int, error) {
				c.fill(o)
				_, err := c.store().Create(c, *o)
				return 0, err
			}
		}}
}

func runCommand() command {
	return command{name: "run", args: "ID", short: "create a container, run it and delete it when it ends", min: 1, max: 1,
		flags: func(flags *flag.FlagSet) func(*call) (int, error) {
			o := createFlags(flags)
			detach := flags.Bool("detach", false, "do not wait for the container to end")
			flags.BoolVar(detach, "d", false, "short for --detach")
			keep := flags.Bool("keep", false, "do not delete the container when it has ended")
			return func(c *call) (int, error) {
				c.fill(o)
				if *detach {
					_, err := c.store().Run(c, *o)
					return 0, err
				}
				return foreground.Run(c, c.store(), *o, foreground.Options{Keep: *keep})
			}
		}}
}
