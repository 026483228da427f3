package cgroup

import (
	"errors"
	"fmt"
	"strings"
)

// change is apply for a container that runs: where it fails, the limits that were changed before get their old values back.
func (p *plan) change(dir directories) error {
	if p.err != nil {
		return p.err
	}
	before := &plan{}
	for _, g := range p.groups {
		var old []setting
		for _, s := range g {
			if o, ok := s.now(dir); ok {
				old = append(old, o)
			}
		}
		before.groups = append(before.groups, old)
		err := applyGroup(g, dir)
		if err == nil {
			continue
		}
		for i := len(before.groups) - 1; i >= 0; i-- {
			if uerr := applyGroup(before.groups[i], dir); uerr != nil {
				err = errors.Join(err, fmt.Errorf("and what was changed before it could not be changed back: %w", uerr))
			}
		}
		return err
	}
	return nil
}

// now is the setting that its file has, as it can be written back; false where there is none.
func (s *setting) now(dir directories) (setting, bool) {
	d, err := dir(controllerOf(s.file))
	if err != nil {
		return setting{}, false
	}
	file := s.file
	text, err := readFile(d + "/" + file)
	if s.alt != "" && gone(err) {
		file = s.alt
		text, err = readFile(d + "/" + file)
	}
	value, ok := writable(file, s.value, text)
	return setting{field: s.field, file: file, value: value}, err == nil && ok
}

// writable is the part of a control file's content that the write of value changes, in the form in which the kernel takes it back.
func writable(file, value, content string) (string, bool) {
	lines := strings.Split(strings.TrimSpace(content), "\n")
	key, _, keyed := strings.Cut(value, " ")
	switch {
	case file == "memory.oom_control":
		disabled, ok := strings.CutPrefix(lines[0], "oom_kill_disable ")
		return disabled, ok
	case !keyed || file == "cpu.max": // all of it; an empty list of CPUs takes a write of a line, not of nothing
		for _, line := range lines {
			if rest, ok := strings.CutPrefix(line, "default "); ok { // io.weight
				return rest, true
			}
		}
		return strings.TrimSpace(content) + "\n", len(lines) == 1
	}
	for _, line := range lines {
		if first, _, _ := strings.Cut(line, " "); first == key {
			return line, true
		}
	}
	return unlimited(file, key)
}

// unlimited is how a file that has a line for each device with a limit is told that one has none.
func unlimited(file, device string) (string, bool) {
	switch {
	case file == "io.max":
		return device + " rbps=max wbps=max riops=max wiops=max", true
	case file == "io.weight" || file == "io.bfq.weight" || file == "blkio.bfq.weight_device":
		return device + " default", true
	case file == "rdma.max":
		return device + " hca_handle=max hca_object=max", true
	case strings.HasPrefix(file, "blkio."):
		return device + " 0", true
	}
	return "", false
}
