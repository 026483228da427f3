package cgroup

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// setting is one write to a control file.
type setting struct {
	field      string // of config.json, below linux.resources
	controller string
	file       string
	alt        string // written instead where file does not exist, with altValue if that is set
	altValue   string
	value      string
	// needless says that the value is what holds anyway where the file does not exist.
	needless bool
}

// plan is a list of writes, in order. Those in one group depend on one another's values, so that the kernel may take them in one
// order only: memory limits are an example, of which the smaller has to go first or last.
type plan struct {
	groups [][]setting
	err    error
}

// group begins a new group; the settings added next belong to it.
func (p *plan) group() { p.groups = append(p.groups, nil) }

func (p *plan) add(field, controller, file, value string) *setting {
	last := len(p.groups) - 1
	p.groups[last] = append(p.groups[last], setting{field: field, controller: controller, file: file, value: value})
	return &p.groups[last][len(p.groups[last])-1]
}

// one adds a setting that depends on no other.
func (p *plan) one(field, controller, file, value string) *setting {
	p.group()
	return p.add(field, controller, file, value)
}

// refuse notes that a field cannot be had. The first refusal is the plan's error.
func (p *plan) refuse(field, why string) {
	if p.err == nil {
		p.err = fmt.Errorf("linux.resources.%s: %s: %w", field, why, ErrUnsupported)
	}
}

// invalid notes that a field's value makes no sense.
func (p *plan) invalid(field, why string) {
	if p.err == nil {
		p.err = fmt.Errorf("linux.resources.%s: %s", field, why)
	}
}

// apply writes the plan; dir gives the directory of a controller, or an error where there is none.
func (p *plan) apply(dir func(controller string) (string, error)) error {
	if p.err != nil {
		return p.err
	}
	for _, g := range p.groups {
		if err := applyGroup(g, dir); err != nil {
			return err
		}
	}
	return nil
}

// applyGroup writes a group, and what the kernel called invalid once more after the others, as long as that gets on.
func applyGroup(pending []setting, dir func(string) (string, error)) error {
	for len(pending) > 0 {
		var again []setting
		var first error
		for _, s := range pending {
			err := s.write(dir)
			if err == nil {
				continue
			}
			if !errors.Is(err, unix.EINVAL) {
				return err
			}
			if first == nil {
				first = err
			}
			again = append(again, s)
		}
		if len(again) == len(pending) {
			return first
		}
		pending = again
	}
	return nil
}

func (s *setting) write(dir func(string) (string, error)) error {
	d, err := dir(s.controller)
	if err != nil {
		return fmt.Errorf("linux.resources.%s: %w", s.field, err)
	}
	err = writeFile(d+"/"+s.file, s.value)
	if s.alt != "" && errors.Is(err, os.ErrNotExist) {
		value := s.value
		if s.altValue != "" {
			value = s.altValue
		}
		err = writeFile(d+"/"+s.alt, value)
	}
	if err == nil || s.needless && errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("linux.resources.%s: this kernel has no %s: %w", s.field, s.file, ErrUnsupported)
	}
	return fmt.Errorf("linux.resources.%s: %w", s.field, err)
}

// orMax writes a limit the way version 2 and pids.max want it: negative is "max".
func orMax(n int64) string {
	if n < 0 {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}

func itoa[T ~int64](n T) string { return strconv.FormatInt(int64(n), 10) }

func utoa[T ~uint16 | ~uint32 | ~uint64](n T) string { return strconv.FormatUint(uint64(n), 10) }

// set reports whether an optional number was given a value; like runc, zero counts as none, because engines send it for every limit that
// nobody asked for.
func set[T int64 | uint64 | uint32 | uint16](p *T) bool { return p != nil && *p != 0 }

// number is the value of an optional number.
func number[T int64 | uint64](p *T) T {
	if p == nil {
		return 0
	}
	return *p
}
