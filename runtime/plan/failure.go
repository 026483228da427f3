package plan

import (
	"fmt"
	"strings"
	"syscall"

	"github.com/tare-oci/tare/runtime/linux"
	"github.com/tare-oci/tare/runtime/program"
)

// A StepError is the failure of one step in the container's process. It
// unwraps to the errno.
type StepError struct {
	Op    string // the step, as it prints itself
	Field string
	Call  string // the system call that failed
	Errno syscall.Errno
	text  string
}

// Error names the step, the system call, the cause and the field of config.json.
func (e *StepError) Error() string {
	s := e.text
	if s == "" {
		s = fmt.Sprintf("%s: %s: %s", e.Op, e.Call, linux.ErrnoText(int(e.Errno)))
	}
	if e.Field != "" {
		s += " (" + e.Field + ")"
	}
	return s
}

// Unwrap returns the errno, where it was a system call that failed.
func (e *StepError) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}

// Explain words a program's failure report.
func (p *Plan) Explain(f program.Failure) error {
	if f.Step < 0 || f.Step >= len(p.Steps) {
		return fmt.Errorf("container init: %s: %s", f.Call, linux.ErrnoText(f.Errno))
	}
	s := p.Steps[f.Step]
	text := s.Op.String()
	if op, _, ok := strings.Cut(text, " = "); ok {
		text = op
	}
	e := &StepError{Op: text, Field: s.Field, Call: f.Call, Errno: syscall.Errno(f.Errno)}
	switch x := s.Op.(type) {
	case interface{ explain(errno int) string }:
		e.text = x.explain(f.Errno)
	case interface {
		explainFailure(f program.Failure) string
	}:
		e.text = x.explainFailure(f)
	}
	if f.Call == "fsconfig" && len(f.Strings) > 0 {
		e.text = fmt.Sprintf("%s: option %q: %s", e.Op, strings.Join(f.Strings, "="), linux.ErrnoText(f.Errno))
		if strings.HasPrefix(e.Field, "mounts[") && !strings.HasSuffix(e.Field, ".options") {
			e.Field += ".options"
		}
	}
	return e
}

// A Tail words the failures of the steps that come after start, when the
// process that compiled the plan is gone.
type Tail []TailStep

// A TailStep is one step of a Tail, or a part of one.
type TailStep struct {
	// Address is that of the first of its calls in the program.
	Address uint64 `json:"address"`
	// Text names the step, Field where in config.json it comes from.
	Text  string `json:"text"`
	Field string `json:"field,omitempty"`
}

// Tail returns the steps after the wait for start. There are none where the
// configuration has no process.
func (p *Plan) Tail(im *program.Image) Tail {
	first := len(p.Steps)
	for i, s := range p.Steps {
		switch s.Op.(type) {
		case waitStart:
			first = i
		case end:
			return nil
		}
	}
	var t Tail
	for address, i := range im.Runs {
		if i < first {
			continue
		}
		s := p.Steps[i]
		text, _, _ := strings.Cut(s.Op.String(), " ")
		switch x := s.Op.(type) {
		case execve:
			text = fmt.Sprintf("exec: %q", x.Args[0])
		case runHook:
			text = x.failed()
		}
		t = append(t, TailStep{address, text, s.Field})
	}
	return t
}

// Explain words a failure report.
func (t Tail) Explain(report []byte) error {
	address, cause, err := program.Decode(report)
	if err != nil {
		return err
	}
	var step TailStep
	for _, s := range t {
		if s.Address <= address {
			step = s
		}
	}
	return &StepError{Op: step.Text, Field: step.Field, Errno: syscall.Errno(cause.Errno), text: step.Text + ": " + causeText(cause)}
}
