package runtimecli

import (
	"errors"
	"flag"
	"os"
	"strconv"

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
	flags.IntVar(&o.PreserveFDs, "preserve-fds", 0, "pass `N` descriptors to the container, from 3 up or behind those of $LISTEN_FDS")
	flags.BoolVar(&o.NoNewKeyring, "no-new-keyring", false, "leave the session keyring as it is")
	flags.StringVar(&o.PIDFDSocket, "pidfd-socket", "", "unix `socket` that receives a descriptor of the container's process")
	flags.BoolVar(&o.NoPivot, "no-pivot", false, "leave the host's root beneath the container's: where / is the initial ramdisk")
	return o
}

func (c *call) fill(o *lifecycle.CreateOptions) {
	o.ID = c.args[0]
	o.Stdio = [3]*os.File{os.Stdin, os.Stdout, os.Stderr}
	o.ListenFDs, o.NotifySocket = listenFDs(), os.Getenv("NOTIFY_SOCKET")
	o.Warn, o.Debug = c.log.warn, c.log.debugger()
	o.CgroupManager, o.Rootless = cgroup.Driver(c.cgroupManager), c.rootless.is
}

// listenFDs is how many sockets a service manager has opened for us:
// sd_listen_fds(3). They are the container's.
func listenFDs() int {
	if pid, err := strconv.Atoi(os.Getenv("LISTEN_PID")); err != nil || pid != os.Getpid() {
		return 0
	}
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil {
		return 0
	}
	return max(n, 0)
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
			orphans := flags.Bool("no-subreaper", false, "do not become the parent of processes that the container leaves behind")
			return func(c *call) (int, error) {
				c.fill(o)
				if *detach {
					p, err := c.store().Run(c, *o)
					if err != nil {
						return 1, err
					}
					return 0, p.Notify(c, p.PID)
				}
				if o.ConsoleSocket != "" {
					return 1, errors.New("cannot use --console-socket without --detach")
				}
				o.Subreaper = !*orphans
				return foreground.Run(c, c.store(), *o, foreground.Options{Keep: *keep})
			}
		}}
}
