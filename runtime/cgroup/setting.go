package cgroup

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/spec"
)

// setting is one write to a control file.
type setting struct {
	field string // of config.json, below linux.resources
	file  string
	value string
	alt   string // written instead where file does not exist, with altValue if that is set

	altValue string
	// needless says that the value is what holds anyway where the file does not exist.
	needless bool
}

// plan is a list of writes, in order. Those in one group depend on one another's values, so that the kernel may take them in one
// order only: memory limits are an example, of which the smaller has to go first or last.
type plan struct {
	groups [][]setting
	err    error
	// unified says whether a field that version 1 and version 2 have in these files goes to the unified hierarchy.
	unified func(v1, v2 string) bool
}

// onV1 and onV2 are for a machine with one version only.
func onV1(string, string) bool { return false }
func onV2(string, string) bool { return true }

// group begins a new group; the settings added next belong to it.
func (p *plan) group() { p.groups = append(p.groups, nil) }

// A value is what is written to a control file of version 1 and to that of version 2.
type value struct{ v1, v2 string }

func same(s string) value { return value{s, s} }

// add adds a setting of a field to the current group. The row of the table, control, is named like the field unless that has an index. It returns
// a setting that is not in the plan where there is none.
func (p *plan) add(field, row string, v value) *setting {
	v1, v2 := controlFiles(row)
	file, text, version := v1, v.v1, 1
	if p.unified(v1, v2) {
		file, text, version = v2, v.v2, 2
	}
	if file == "" {
		p.refuse(field, fmt.Sprintf("cgroup v%d has no such setting", version))
		return new(setting)
	}
	file, alt, _ := strings.Cut(file, "|")
	last := len(p.groups) - 1
	p.groups[last] = append(p.groups[last], setting{field: field, file: file, alt: alt, value: text})
	return &p.groups[last][len(p.groups[last])-1]
}

// one adds a setting that depends on no other.
func (p *plan) one(field, row string, v value) *setting {
	p.group()
	return p.add(field, row, v)
}

// refuse notes that a field cannot be had. The first refusal is the plan's error.
func (p *plan) refuse(field, why string) {
	if p.err == nil {
		p.err = fieldError(field, fmt.Errorf("%s: %w", why, ErrUnsupported))
	}
}

// invalid notes that a field's value makes no sense.
func (p *plan) invalid(field, why string) {
	if p.err == nil {
		p.err = fieldError(field, errors.New(why))
	}
}

// fieldError says what is wrong with a field below linux.resources.
func fieldError(field string, err error) error {
	return &spec.FieldError{Field: "linux.resources." + field, Err: err}
}

// wrapped puts the package's name before an error that does not name a field of config.json.
func wrapped(err error) error {
	var field *spec.FieldError
	if err == nil || errors.As(err, &field) {
		return err
	}
	return fmt.Errorf("cgroup: %w", err)
}

// directories gives the directory of a controller, or an error where there is none.
type directories func(controller string) (string, error)

// apply writes the plan.
func (p *plan) apply(dir directories) error {
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
func applyGroup(pending []setting, dir directories) error {
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

func (s *setting) write(dir directories) error {
	d, err := dir(controllerOf(s.file))
	if err != nil {
		return fieldError(s.field, err)
	}
	err = writeFile(d+"/"+s.file, s.value)
	if s.alt != "" && errors.Is(err, os.ErrNotExist) {
		value := s.value
		if s.altValue != "" {
			value = s.altValue
		}
		err = writeFile(d+"/"+s.alt, value)
	}
	switch {
	case err == nil || s.needless && errors.Is(err, os.ErrNotExist):
		return nil
	case errors.Is(err, os.ErrNotExist):
		err = fmt.Errorf("this kernel has no %s: %w", s.file, ErrUnsupported)
	case s.file == "memory.limit_in_bytes" && errors.Is(err, unix.EBUSY):
		err = fmt.Errorf("unable to set memory limit to %s (current usage: %s, peak usage: %s): %w", s.value,
			firstLine(d+"/memory.usage_in_bytes"), firstLine(d+"/memory.max_usage_in_bytes"), err) // runc's words
	}
	return fieldError(s.field, err)
}

// firstLine is for messages.
func firstLine(path string) string {
	text, err := readFile(path)
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(text, "\n")
	return line
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
