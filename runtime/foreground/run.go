package foreground

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/lifecycle"
)

// Options are what Run needs besides what creates the container.
type Options struct {
	// Terminal gives the container a terminal, relayed to Stdio.
	Terminal bool
	// Keep leaves the container's state when it has ended.
	Keep bool
}

// Run creates and runs a container, and deletes it when it has ended or when
// anything fails. An interruption before the container runs ends the creation;
// after that, signals are the container's.
func Run(ctx context.Context, s lifecycle.Store, create lifecycle.CreateOptions, o Options) (status int, err error) {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	defer signal.Stop(signals)
	ctx, interrupt := context.WithCancelCause(ctx)
	defer interrupt(nil)
	running := make(chan *lifecycle.Process, 1)
	var term *terminal
	if o.Terminal {
		if term, err = openTerminal(create.Stdio[0], create.Stdio[1]); err != nil {
			return 0, err
		}
		defer term.close()
		create.Console = term.child
	}
	go relaySignals(ctx, signals, running, interrupt, term)
	p, err := s.Run(ctx, create)
	if err != nil {
		return 0, err
	}
	running <- p
	if term != nil {
		err = term.attach()
	}
	if err == nil {
		status, err = p.Wait()
	}
	if term != nil && err == nil {
		term.drain()
	}
	if !o.Keep || err != nil {
		err = errors.Join(err, p.Close(context.WithoutCancel(ctx)))
	}
	return status, err
}

// relaySignals passes signals to the container once it runs. Before, those
// that end a program end its creation.
func relaySignals(ctx context.Context, signals <-chan os.Signal, running <-chan *lifecycle.Process, interrupt context.CancelCauseFunc,
	term *terminal) {
	var p *lifecycle.Process
	for {
		select {
		case <-ctx.Done():
			return
		case p = <-running:
			running = nil
		case sig := <-signals:
			switch {
			case sig == unix.SIGCHLD || sig == unix.SIGURG || sig == unix.SIGPIPE: // ours: children, the Go scheduler, closed pipes
			case sig == unix.SIGWINCH && term != nil:
				term.resize()
			case p != nil:
				_ = p.Signal(sig) // it may have ended just now
			case sig == unix.SIGINT || sig == unix.SIGTERM || sig == unix.SIGHUP || sig == unix.SIGQUIT:
				interrupt(fmt.Errorf("interrupted by %v", sig))
			}
		}
	}
}
