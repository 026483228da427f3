package runtimecli

import (
	"context"
	"flag"

	"github.com/tare-oci/tare/runtime/lifecycle"
)

func pauseCommand() command {
	return freezeCommand("pause", "stop all processes of a container", lifecycle.Store.Pause)
}

func resumeCommand() command {
	return freezeCommand("resume", "let the processes of a paused container run again", lifecycle.Store.Resume)
}

func freezeCommand(name, short string, do func(lifecycle.Store, context.Context, string) error) command {
	return command{name: name, args: "ID", short: short, min: 1, max: 1,
		flags: func(*flag.FlagSet) func(*call) (int, error) {
			return func(c *call) (int, error) { return 0, do(c.store(), c, c.args[0]) }
		}}
}
