package engine

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/foreground"
	"github.com/tare-oci/tare/runtime/plan"
)

// What a caller may want to tell apart.
var (
	// ErrNoImage: the store has no image of that name.
	ErrNoImage = errors.New("no such image in the store")
	// ErrSeveralNames: a digest does not say which of its image's names is meant.
	ErrSeveralNames = errors.New("has several names")
	// ErrFileExists: a file of an artifact would replace another.
	ErrFileExists = fmt.Errorf("%w", os.ErrExist)
	// ErrNeedsRoot: this takes privileges that we do not have.
	ErrNeedsRoot = errors.New("root is needed for that")
	// ErrCommandNotFound: the container has no such program; shells and engines exit with 127.
	ErrCommandNotFound = errors.New("command not found")
	// ErrCommandNotExecutable: the program is there and cannot be executed; shells and engines exit with 126.
	ErrCommandNotExecutable = errors.New("command cannot be executed")
)

// ExitStatus is the status that a command line ends with for an error of Run:
// 127 for a command that does not exist, 126 for one that cannot be executed,
// 128 and the signal's number where a signal ended it, 125 for all else, as
// docker and podman have it.
func ExitStatus(err error) int {
	var interrupted *foreground.Interrupted
	switch {
	case errors.As(err, &interrupted):
		if n, ok := interrupted.Signal.(unix.Signal); ok {
			return 128 + int(n)
		}
	case errors.Is(err, ErrCommandNotFound):
		return 127
	case errors.Is(err, ErrCommandNotExecutable):
		return 126
	}
	return 125
}

// commandError adds to an error of starting a container whether it is the
// user's command that is wrong.
func commandError(err error) error {
	var step *plan.StepError
	var field *plan.FieldError
	switch {
	case errors.As(err, &step) && strings.HasPrefix(step.Field, "process.args"):
		return kindOfCommandError(err, step.Errno == unix.ENOENT || step.Errno == unix.ENOTDIR || strings.Contains(err.Error(), inPath))
	case errors.As(err, &field) && strings.HasPrefix(field.Field, "process.args") && strings.Contains(err.Error(), inPath):
		return kindOfCommandError(err, true)
	}
	return err
}

// inPath is how engines have always recognised a command that is not there.
const inPath = "not found in $PATH"

func kindOfCommandError(err error, notFound bool) error {
	kind := ErrCommandNotExecutable
	if notFound {
		kind = ErrCommandNotFound
	}
	return &classified{err, kind}
}

// classified is an error that is also another one, without saying so twice.
type classified struct {
	error
	kind error
}

func (e *classified) Unwrap() []error { return []error{e.error, e.kind} }

// needRoot refuses what takes root: owners of files, device nodes, mounts.
func needRoot(what string) error {
	if os.Geteuid() == 0 {
		return nil
	}
	return fmt.Errorf("%s as user %d: %w (try sudo): it gives files their owners and mounts them", what, os.Geteuid(), ErrNeedsRoot)
}
