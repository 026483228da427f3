package foreground

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/lifecycle"
)

// Options are what Run needs besides what creates the container.
type Options struct {
	// Keep leaves the container's state when it has ended.
	Keep bool
	// Caught, where not nil, is called once signals are ours: a caller that has
	// caught them until then may let go.
	Caught func()
}

// Interrupted is why a container was not made: a signal ended its creation.
type Interrupted struct{ Signal os.Signal }

// Error names the signal.
func (e *Interrupted) Error() string { return fmt.Sprintf("interrupted by %v", e.Signal) }

// endings are the signals that mean us until the container runs.
var endings = []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT}

// usual are other signals that are sent to containers. Until they are caught,
// they do nothing to us.
var usual = []os.Signal{unix.SIGUSR1, unix.SIGUSR2}

// settled is how long a container runs before the less usual signals are
// relayed too. To catch a signal costs two switches of threads; all of them
// would double the time that a short container takes.
const settled = 20 * time.Millisecond

// CatchAll has all signals sent to c, but those that we were started to ignore.
func CatchAll(c chan<- os.Signal) {
	all := make([]os.Signal, 64)
	for i := range all {
		all[i] = unix.Signal(i + 1)
	}
	catch(c, all)
}

// catch has signals sent to c, but those that we were started to ignore, as
// nohup does with SIGHUP: they are not the container's business either.
func catch(c chan<- os.Signal, signals []os.Signal) {
	if wanted := slices.DeleteFunc(slices.Clone(signals), signal.Ignored); len(wanted) > 0 {
		signal.Notify(c, wanted...)
	}
}

// Run creates and runs a container, and deletes it when it has ended or when
// anything fails. An interruption before the container runs ends the creation;
// after that, signals are the container's. They stay caught when Run returns:
// nothing shall interrupt what the caller still cleans up, and a program that
// goes on may reset them (package os/signal).
func Run(ctx context.Context, s lifecycle.Store, create lifecycle.CreateOptions, o Options) (status int, err error) {
	return attend(ctx, create.Stdio, o, func(ctx context.Context, term *terminal, begin func()) (process, error) {
		create.Console, create.ConsoleSize, create.Begin = term.open, term.size(), begin
		p, err := s.Run(ctx, create)
		if err != nil {
			return nil, err
		}
		if create.NotifySocket != "" {
			go func() {
				// We are what the service manager knows.
				if err := p.Notify(ctx, os.Getpid()); err != nil && create.Warn != nil {
					create.Warn(err.Error())
				}
			}()
		}
		return p, nil
	})
}

// Exec runs one more program in a container, as Run runs a container's own.
func Exec(ctx context.Context, s lifecycle.Store, exec lifecycle.ExecOptions) (status int, err error) {
	return attend(ctx, exec.Stdio, Options{}, func(ctx context.Context, term *terminal, begin func()) (process, error) {
		exec.Console, exec.ConsoleSize, exec.Begin = term.open, term.size(), begin
		return s.Exec(ctx, exec)
	})
}

// Restore brings a container back, as Run runs a new one.
func Restore(ctx context.Context, s lifecycle.Store, create lifecycle.CreateOptions, from lifecycle.CheckpointOptions) (status int, err error) {
	return attend(ctx, create.Stdio, Options{}, func(ctx context.Context, term *terminal, begin func()) (process, error) {
		create.Console, create.ConsoleSize, create.Begin = term.open, term.size(), begin
		return s.Restore(ctx, create, from)
	})
}

// A process is one that we started and stay with.
type process interface {
	Signal(os.Signal) error
	Wait() (status int, err error)
	Close(context.Context) error
}

// attend starts a process and stays until it has ended. The function that
// starts it calls begin before the first thing that must not be interrupted.
func attend(ctx context.Context, stdio [3]*os.File, o Options,
	start func(ctx context.Context, term *terminal, begin func()) (process, error)) (status int, err error) {
	signals, caught := make(chan os.Signal, 64), make(chan struct{})
	ctx, interrupt := context.WithCancelCause(ctx)
	defer interrupt(nil)
	running := make(chan process, 1)
	term := &terminal{stdin: stdio[0], stdout: stdio[1]}
	defer term.close()
	done := make(chan struct{})
	defer close(done)
	go relaySignals(done, signals, caught, running, interrupt, term) // catches them beside the making of the program
	p, err := start(ctx, term, func() {
		<-caught
		if o.Caught != nil {
			o.Caught()
		}
	})
	var interrupted *Interrupted
	if cause := context.Cause(ctx); err != nil && errors.As(cause, &interrupted) && !errors.As(err, &interrupted) {
		err = fmt.Errorf("%w: %w", cause, err) // whatever it was that the signal has ended
	}
	if err != nil {
		return 0, err
	}
	if err = term.attach(); err == nil {
		running <- p
		status, err = p.Wait()
		term.drain()
	}
	if !o.Keep || err != nil {
		err = errors.Join(err, p.Close(context.WithoutCancel(ctx)))
	}
	return status, err
}

// relaySignals catches signals and passes them to the container once it runs. Before, those
// that end a program end its creation; if that comes too late, they are the
// container's as well.
func relaySignals(done <-chan struct{}, c chan os.Signal, caught chan<- struct{}, running <-chan process,
	interrupt context.CancelCauseFunc, term *terminal) {
	catch(c, endings)
	close(caught)
	var p process
	var rest <-chan time.Time
	var early []os.Signal
	for {
		select {
		case <-done:
			return
		case p = <-running:
			catch(c, usual)
			running, rest = nil, time.After(settled)
			for _, sig := range early {
				_ = p.Signal(sig) // it may have ended just now
			}
		case <-rest:
			CatchAll(c)
			term.resize() // as it may have been since
		case sig := <-c:
			switch {
			case sig == unix.SIGCHLD || sig == unix.SIGURG || sig == unix.SIGPIPE: // ours: children, the Go scheduler, closed pipes
			case p != nil && sig == unix.SIGWINCH && term.master != nil:
				term.resize()
			case p != nil:
				_ = p.Signal(sig) // it may have ended just now
			default:
				early = append(early, sig)
				if slices.Contains(endings, sig) {
					interrupt(&Interrupted{sig})
				}
			}
		}
	}
}
