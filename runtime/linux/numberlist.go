package linux

import (
	"fmt"
	"iter"
	"strconv"
	"strings"
)

// Bounds of what the kernel can be built for: CPUs (CONFIG_NR_CPUS) and memory
// nodes (CONFIG_NODES_SHIFT).
const (
	MaxCPUs  = 8192
	MaxNodes = 1024
)

// A NumberSet is a set of CPUs or memory nodes as the kernel takes it: bit n of
// the words stands for number n.
type NumberSet []uint64

// ParseNumbers reads a list of numbers below limit such as "0-3,7", as
// config.md describes it for execCPUAffinity. Like runc it lets spaces and
// superfluous commas pass.
func ParseNumbers(list string, limit int) (NumberSet, error) {
	var set NumberSet
	for part := range strings.SplitSeq(list, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		from, to, ranged := strings.Cut(part, "-")
		first, err := strconv.ParseUint(from, 10, 32)
		last := first
		if err == nil && ranged {
			last, err = strconv.ParseUint(to, 10, 32)
		}
		switch {
		case err != nil || last < first:
			return nil, fmt.Errorf("%q is not a list such as 0-3,7", list)
		case last >= uint64(limit):
			return nil, fmt.Errorf("%d is larger than %d", last, limit-1)
		}
		for n := first; n <= last; n++ {
			set = set.with(int(n))
		}
	}
	return set, nil
}

func (s NumberSet) with(n int) NumberSet {
	for n/64 >= len(s) {
		s = append(s, 0)
	}
	s[n/64] |= 1 << (n % 64)
	return s
}

func (s NumberSet) has(n int) bool { return n >= 0 && n/64 < len(s) && s[n/64]&(1<<(n%64)) != 0 }

// All are the numbers, in order.
func (s NumberSet) All() iter.Seq[int] {
	return func(yield func(int) bool) {
		for n := range len(s) * 64 {
			if s.has(n) && !yield(n) {
				return
			}
		}
	}
}

// String prints the set in the form that ParseNumbers reads.
func (s NumberSet) String() string {
	var b strings.Builder
	for n := range s.All() {
		switch first, last := !s.has(n-1), !s.has(n+1); {
		case first && b.Len() > 0:
			b.WriteString("," + strconv.Itoa(n))
		case first:
			b.WriteString(strconv.Itoa(n))
		case last:
			b.WriteString("-" + strconv.Itoa(n))
		}
	}
	return b.String()
}
