package testenv

import (
	"os"
	"os/signal"
	"testing"

	"golang.org/x/sys/unix"
)

// Hangups lets the commands that a test starts begin with SIGHUP as usual, also
// where the tests were started by nohup: what a process catches, its children
// get with the default, and what it ignores they ignore.
func Hangups(t testing.TB) {
	t.Helper()
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGHUP)
	t.Cleanup(func() { signal.Stop(c) })
}
