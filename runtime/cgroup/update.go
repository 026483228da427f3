package cgroup

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func (m *v1) Set(ctx context.Context, r *specs.LinuxResources) error {
	if err := ctx.Err(); err != nil {
		return wrapped(err)
	}
	plan := m.plan(r)
	if plan.err != nil {
		return plan.err
	}
	if dir, err := m.dir("memory"); err == nil {
		if err := checkBeforeUpdate(r, dir+"/memory.usage_in_bytes"); err != nil {
			return err
		}
	}
	return wrapped(plan.change(m.dir))
}

func (m *v2) Set(ctx context.Context, r *specs.LinuxResources) error {
	if err := ctx.Err(); err != nil {
		return wrapped(err)
	}
	if err := m.enable(); err != nil {
		return wrapped(err)
	}
	if err := checkBeforeUpdate(r, m.dir+"/memory.current"); err != nil {
		return err
	}
	r, err := m.complete(r)
	if err != nil {
		return err
	}
	return wrapped(planFor(r, onV2).change(m.controllerDir))
}

// checkBeforeUpdate refuses a memory limit below what is in use, if the configuration asks for that: the kernel would reclaim, and
// then kill.
func checkBeforeUpdate(r *specs.LinuxResources, usageFile string) error {
	if r == nil || r.Memory == nil || r.Memory.CheckBeforeUpdate == nil || !*r.Memory.CheckBeforeUpdate {
		return nil
	}
	for _, l := range []struct {
		field string
		limit *int64
	}{{"memory.limit", r.Memory.Limit}, {"memory.swap", r.Memory.Swap}} {
		if number(l.limit) <= 0 {
			continue
		}
		usage, err := readLimit(usageFile)
		if err != nil {
			return fieldError("memory.checkBeforeUpdate", err)
		}
		if *l.limit <= usage {
			return fieldError(l.field, fmt.Errorf("%d is below the %d in use", *l.limit, usage))
		}
	}
	return nil
}

// complete adds to an update what version 2 needs to know besides: its cpu.max holds quota and period, the quota first, and its limit
// of swap is version 1's of memory and swap together without that of memory.
func (m *v2) complete(r *specs.LinuxResources) (*specs.LinuxResources, error) {
	if r == nil {
		return nil, nil
	}
	full := *r
	if c := r.CPU; c != nil && set(c.Period) && !set(c.Quota) {
		quota, err := readLimit(m.dir + "/cpu.max")
		if err != nil {
			return nil, fieldError("cpu.period", err)
		}
		if quota != math.MaxInt64 {
			cpu := *c
			cpu.Quota = &quota
			full.CPU = &cpu
		}
	}
	if r.Memory == nil || set(r.Memory.Limit) == set(r.Memory.Swap) || number(r.Memory.Limit) < 0 || number(r.Memory.Swap) < 0 {
		return &full, nil
	}
	memory := *r.Memory
	full.Memory = &memory
	return &full, m.completeMemory(&memory)
}

// completeMemory adds the other of memory's limit and that of memory and swap together, as it is now.
func (m *v2) completeMemory(memory *specs.LinuxMemory) error {
	limit, err := readLimit(m.dir + "/memory.max")
	if err != nil {
		return fieldError("memory", err)
	}
	if !set(memory.Limit) {
		if limit != math.MaxInt64 {
			memory.Limit = &limit
		}
		return nil
	}
	swap, err := readLimit(m.dir + "/memory.swap.max")
	if gone(err) || err == nil && (swap == math.MaxInt64 || limit == math.MaxInt64 || swap > math.MaxInt64-limit) {
		return nil // there is no limit of both together
	}
	if err != nil {
		return fieldError("memory.swap", err)
	}
	total := limit + swap
	if total < *memory.Limit {
		return fieldError("memory.limit", fmt.Errorf("%d is above the limit of memory and swap together, %d: change that too", *memory.Limit, total))
	}
	memory.Swap = &total
	return nil
}

// readLimit reads the first number of a control file; "max" is MaxInt64.
func readLimit(path string) (int64, error) {
	text, err := readFile(path)
	if err != nil {
		return 0, err
	}
	return parseLimit(text, path)
}

func parseLimit(text, path string) (int64, error) {
	first, _, _ := strings.Cut(strings.TrimSpace(text), " ")
	if first == "max" {
		return math.MaxInt64, nil
	}
	n, err := strconv.ParseUint(first, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return int64(min(n, math.MaxInt64)), nil
}
