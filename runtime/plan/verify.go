package plan

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/tare-oci/tare/runtime/linux"
)

// Verify checks what every plan promises, whatever the configuration: its steps
// use descriptors that the process was started with, or that an earlier step has
// made; the program runs last, once the container is ready and, where it waits,
// start has been called, and it is left no descriptor but its own. It is for
// tests: what Compile returns passes.
func (p *Plan) Verify() error {
	var errs []error
	sync, keep := 0, 0
	for i, f := range p.Files {
		switch {
		case f.Kind == SyncPipe:
			sync++
		case f.Kind == Stdio || f.Kind == Preserved:
			if keep++; keep != i+1 {
				errs = append(errs, fmt.Errorf("descriptor %d is %v, behind one that the program does not get", i, f))
			}
		}
	}
	if sync != 1 || keep < 3 {
		errs = append(errs, fmt.Errorf("%d sockets to the parent, %d descriptors for the program", sync, keep))
	}
	for i, s := range p.Steps {
		if err := p.verifyFDs(reflect.ValueOf(s.Op)); err != nil {
			errs = append(errs, fmt.Errorf("step %d: %v: %w", i, s.Op, err))
		}
	}
	errs = append(errs, p.verifyOrder(keep))
	im, err := p.Program()
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	return errors.Join(append(errs, im.Verify(), p.verifyOpening(im))...)
}

// verifyOrder checks the steps that come once, and their order.
func (p *Plan) verifyOrder(keep int) error {
	at := map[string]int{}
	for i, s := range p.Steps {
		var name string
		switch op := s.Op.(type) {
		case hold:
			name = "begin"
		case load:
			name = "load"
		case awaitCgroup:
			name = "groups"
		case ready:
			name = "ready"
		case waitStart:
			name = "wait"
		case closeOnExec:
			name = "close"
			if op.First != keep {
				return fmt.Errorf("step %d: %v: the program has %d", i, op, keep)
			}
		case execve, end:
			name = "last"
		default:
			continue
		}
		if at[name] != 0 {
			return fmt.Errorf("step %d: %v: the second of its kind", i, s.Op)
		}
		at[name] = i + 1
	}
	_, idle := p.Steps[len(p.Steps)-1].Op.(end)
	inOrder := at["begin"] > 0 && at["load"] < at["ready"] && at["groups"] < at["ready"] && at["begin"] < at["ready"] && at["ready"] < at["last"] && at["last"] == len(p.Steps) &&
		(at["wait"] == 0 || at["ready"] < at["wait"]) && (idle || at["wait"] < at["close"] && at["close"] > 0)
	if !inOrder {
		return fmt.Errorf("steps in the wrong order: %v of %d", at, len(p.Steps))
	}
	return nil
}

// verifyFDs looks at all descriptors of an operation.
func (p *Plan) verifyFDs(op reflect.Value) error {
	switch op.Kind() {
	case reflect.Struct:
		if op.Type() == reflect.TypeFor[FD]() {
			return p.verifyFD(FD{op.Field(0).String(), int(op.Field(1).Int()), op.Field(2).Bool()})
		}
		for i := range op.NumField() {
			if err := p.verifyFDs(op.Field(i)); err != nil {
				return err
			}
		}
	case reflect.Slice, reflect.Array:
		for i := range op.Len() {
			if err := p.verifyFDs(op.Index(i)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *Plan) verifyFD(f FD) error {
	switch {
	case f == FD{}:
		return nil // the operation has another way to name what it works on
	case f.variable && f.number < p.slots:
		return nil
	case !f.variable && (f.number < len(p.Files) || f.number == linux.AT_FDCWD):
		return nil
	}
	return fmt.Errorf("%v: no such descriptor", f)
}
