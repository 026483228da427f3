package seccomp

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// rule is an action for calls whose arguments meet all conditions.
type rule struct {
	conditions []condition // by argument, each at most once
	action     uint32
}

// condition compares one argument. Only equality knows a mask other than all
// ones, and its value lies within the mask.
type condition struct {
	arg   uint32
	op    operator
	mask  uint64
	value uint64
}

type operator uint8

const (
	equal operator = iota
	notEqual
	less
	lessEqual
	greater
	greaterEqual
)

// operators are the comparisons of profiles.
var operators = [...]struct {
	name   specs.LinuxSeccompOperator
	op     operator
	masked bool // value is the mask, valueTwo what is compared
}{
	{specs.OpEqualTo, equal, false},
	{specs.OpGreaterEqual, greaterEqual, false},
	{specs.OpGreaterThan, greater, false},
	{specs.OpLessEqual, lessEqual, false},
	{specs.OpLessThan, less, false},
	{specs.OpMaskedEqual, equal, true},
	{specs.OpNotEqual, notEqual, false},
}

// Operators lists the comparisons that Compile knows.
func Operators() []specs.LinuxSeccompOperator {
	names := make([]specs.LinuxSeccompOperator, len(operators))
	for i, o := range operators {
		names[i] = o.name
	}
	return names
}

// maxArgs is how many arguments a system call has.
const maxArgs = 6

// parseArgs turns the arguments of a profile's entry into the conditions of one
// or several rules: as in runc, conditions on different arguments must all
// hold, but as soon as one argument occurs twice, each condition is a rule of
// its own.
func parseArgs(args []specs.LinuxSeccompArg) ([][]condition, error) {
	conditions := make([]condition, 0, len(args))
	var seen [maxArgs]bool
	repeated := false
	for i := range args {
		c, err := parseArg(&args[i])
		if err != nil {
			return nil, within(fmt.Sprintf("args[%d]", i), err)
		}
		repeated = repeated || seen[c.arg]
		seen[c.arg] = true
		conditions = append(conditions, c)
	}
	if !repeated {
		slices.SortFunc(conditions, func(a, b condition) int { return cmp.Compare(a.arg, b.arg) })
		return [][]condition{conditions}, nil
	}
	rules := make([][]condition, len(conditions))
	for i := range conditions {
		rules[i] = conditions[i : i+1 : i+1]
	}
	return rules, nil
}

func parseArg(a *specs.LinuxSeccompArg) (condition, error) {
	c := condition{arg: uint32(a.Index), mask: math.MaxUint64, value: a.Value}
	if a.Index >= maxArgs {
		return c, fieldError(".index", "%d: a system call has %d arguments", a.Index, maxArgs)
	}
	for _, o := range operators {
		if o.name == a.Op {
			c.op = o.op
			if o.masked {
				c.mask, c.value = a.Value, a.ValueTwo&a.Value
			}
			return c, nil
		}
	}
	return c, fieldError(".op", "unknown operator %q", a.Op)
}

// forWidth returns conditions as they are on an ABI: one with 32-bit arguments
// compares the lower halves only, and a mask of nothing compares nothing.
func forWidth(conditions []condition, wide bool) []condition {
	width := uint64(math.MaxUint64)
	if !wide {
		width = math.MaxUint32
	}
	same := func(c condition) bool { return c.value&^width == 0 && c.mask&width != 0 }
	if !slices.ContainsFunc(conditions, func(c condition) bool { return !same(c) }) {
		return conditions
	}
	narrow := make([]condition, 0, len(conditions))
	for _, c := range conditions {
		if c.mask&width != 0 {
			c.value &= width
			narrow = append(narrow, c)
		}
	}
	return narrow
}

// withSelector returns the conditions for a call that comes through
// socketcall(2) or ipc(2), whose first argument selects it. The call's own
// arguments are then behind a pointer or shifted. What was asked of the first
// is lost; what was asked of others is asked of the wrong ones. So does
// libseccomp; a profile that must be sure denies the two entries.
func withSelector(conditions []condition, selector uint64) []condition {
	out := make([]condition, 1, len(conditions)+1)
	out[0] = condition{arg: 0, op: equal, mask: math.MaxUint64, value: selector}
	for _, c := range conditions {
		if c.arg != 0 {
			out = append(out, c)
		}
	}
	return out
}

// addRule adds a rule to those of a call unless an earlier one matches whatever
// it would.
func addRule(rules []rule, r rule) []rule {
	for _, earlier := range rules {
		n := len(earlier.conditions)
		if n <= len(r.conditions) && slices.Equal(earlier.conditions, r.conditions[:n]) {
			return rules
		}
	}
	return append(rules, r)
}

// order sorts rules into the order in which they are tried, in place. Where all
// have the same action that is the profile's own, and does not matter. Otherwise
// it is libseccomp's: a rule on a later argument comes before one on an earlier,
// equality before ranges, narrow ranges before wide ones, and a rule with more
// conditions before one with only the first of them. (That is what libseccomp
// means to do. For some unions of ranges on one call 2.5.4 emits code that
// misses matches; here a rule that matches always counts.)
func order(rules []rule) {
	for i := range rules {
		if rules[i].action != rules[0].action {
			slices.SortStableFunc(rules, compareRules)
			return
		}
	}
}

func compareRules(a, b rule) int {
	for i := range min(len(a.conditions), len(b.conditions)) {
		if c := compareConditions(a.conditions[i], b.conditions[i]); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(b.conditions), len(a.conditions))
}

func compareConditions(a, b condition) int {
	value := cmp.Compare(b.value, a.value)
	if a.op == less || a.op == lessEqual {
		value = -value
	}
	return cmp.Or(
		cmp.Compare(b.arg, a.arg),
		cmp.Compare(operatorClass(a.op), operatorClass(b.op)),
		value,
		cmp.Compare(a.op, b.op),
		cmp.Compare(b.mask, a.mask),
	)
}

func operatorClass(op operator) int {
	switch op {
	case equal, notEqual:
		return 0
	case less, lessEqual:
		return 1
	}
	return 2
}

func equalRules(a, b rule) bool {
	return a.action == b.action && slices.Equal(a.conditions, b.conditions)
}
