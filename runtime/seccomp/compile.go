package seccomp

import (
	"errors"
	"fmt"
	"math"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tare-oci/tare/runtime/linux"
)

// A FieldError is what is wrong with a field of a profile.
type FieldError struct {
	Field string // the JSON path, from linux.seccomp on
	Err   error
}

// Error names the field and the cause.
func (e *FieldError) Error() string { return e.Field + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *FieldError) Unwrap() error { return e.Err }

func fieldError(field, format string, args ...any) error {
	return &FieldError{field, fmt.Errorf(format, args...)}
}

// within puts an error of a part of a profile's field into its place.
func within(field string, err error) error {
	if e := (*FieldError)(nil); errors.As(err, &e) {
		return &FieldError{field + e.Field, e.Err}
	}
	return &FieldError{field, err}
}

// Disabled reports whether a profile asks for no filter at all: for runc, one
// without a default action and without system calls.
func Disabled(profile *specs.LinuxSeccomp) bool {
	return profile == nil || profile.DefaultAction == "" && len(profile.Syscalls) == 0
}

// Compile turns a profile into the filter for a kernel of the native
// architecture. Errors are of type *FieldError.
func Compile(profile *specs.LinuxSeccomp, native linux.Arch) (Program, error) {
	c, err := newCompiler(profile, native)
	if err != nil {
		return Program{}, err
	}
	flags, err := ParseFlags(profile.Flags)
	if err != nil {
		return Program{}, err
	}
	for i := range profile.Syscalls {
		if err := c.addEntry(&profile.Syscalls[i]); err != nil {
			return Program{}, within(fmt.Sprintf("linux.seccomp.syscalls[%d]", i), err)
		}
	}
	if c.notifies {
		if profile.ListenerPath == "" {
			return Program{}, fieldError("linux.seccomp.listenerPath", "not set, and %s needs it", specs.ActNotify)
		}
		flags |= linux.SECCOMP_FILTER_FLAG_NEW_LISTENER
	} else {
		// Meaningless without a listener, and then refused by the kernel.
		flags &^= linux.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	}
	c.settle()
	instructions := c.assemble()
	if len(instructions) > MaxInstructions {
		return Program{}, fieldError("linux.seccomp", "the filter has %d instructions, the kernel takes %d", len(instructions), MaxInstructions)
	}
	return Program{Instructions: instructions, Flags: flags}, nil
}

// Bounds on what a profile may make the compiler do, far above what can fit
// into MaxInstructions.
const (
	maxVerdicts = 1 << 14
	maxRules    = 1 << 12 // for one system call
)

// compiler collects, per ABI and system call, what a profile says.
type compiler struct {
	defaultAction uint32
	enosys        int // the verdict on calls newer than the profile
	kill          int // the verdict on calls through an ABI that is not listed
	notifies      bool
	abis          []abi // native first
	verdicts      []verdict
	lastID        linux.SyscallID // where the last name was found
}

// verdict is what happens to a system call: an action, or rules that are tried
// in order before the default action. Verdict 0 is the default action.
type verdict struct {
	action uint32
	rules  []rule
	abi    int // of rules: they compare arguments in their ABI's width
	same   int // the first verdict equal to this one, once settled
}

func (v *verdict) conditional() bool { return len(v.rules) > 0 }

// abi is one system call ABI: verdicts by number less the ABI's base.
type abi struct {
	arch   linux.Arch
	table  [tableSize]uint16
	beyond []beyond // the few calls whose numbers are above the table: arm's private ones
	last   int      // the highest number the profile names within the table, or -1
}

type beyond struct {
	nr      uint32
	verdict uint16
}

// tableSize is above all ordinary system call numbers; x32 has the highest.
const tableSize = 640

func newCompiler(profile *specs.LinuxSeccomp, native linux.Arch) (*compiler, error) {
	if profile == nil {
		return nil, fieldError("linux.seccomp", "no profile")
	}
	if !native.HasSyscalls() || native == linux.ArchX32 {
		return nil, fieldError("linux.seccomp", "cannot compile for a kernel of %s", native)
	}
	action, err := parseAction(profile.DefaultAction, profile.DefaultErrnoRet)
	if err != nil {
		return nil, within("linux.seccomp.defaultAction", err)
	}
	if action == linux.SECCOMP_RET_USER_NOTIF {
		return nil, within("linux.seccomp.defaultAction", errNotifyDefault)
	}
	c := &compiler{defaultAction: action, verdicts: make([]verdict, 1, 32), abis: make([]abi, 0, 3)}
	c.verdicts[0].action = action
	c.kill = c.intern(linux.SECCOMP_RET_KILL_THREAD)
	if refuses(action) {
		c.enosys = c.intern(linux.SECCOMP_RET_ERRNO | linux.ENOSYS)
	}
	c.addABI(native)
	for i, name := range profile.Architectures {
		arch, ok := linux.ParseArch(name)
		if !ok {
			return nil, fieldError(fmt.Sprintf("linux.seccomp.architectures[%d]", i), "unknown architecture %q", name)
		}
		// What this kernel cannot run, a filter on it never sees.
		if native.Runs(arch) && arch.HasSyscalls() {
			c.addABI(arch)
		}
	}
	return c, nil
}

func (c *compiler) addABI(arch linux.Arch) {
	for i := range c.abis {
		if c.abis[i].arch == arch {
			return
		}
	}
	c.abis = append(c.abis, abi{arch: arch, last: -1})
}

// intern returns the verdict of an unconditional action.
func (c *compiler) intern(action uint32) int {
	for i := range c.verdicts {
		if c.verdicts[i].action == action && !c.verdicts[i].conditional() {
			return i
		}
	}
	c.verdicts = append(c.verdicts, verdict{action: action})
	return len(c.verdicts) - 1
}

// entry is one entry of a profile's syscalls, parsed.
type entry struct {
	action uint32
	rules  [][]condition // empty: whatever the arguments
	void   bool          // it asks for what happens anyway
}

func (c *compiler) addEntry(s *specs.LinuxSyscall) error {
	action, err := parseAction(s.Action, s.ErrnoRet)
	if err != nil {
		return within(".action", err)
	}
	if len(s.Names) == 0 {
		return fieldError(".names", "none")
	}
	e := entry{action: action, void: action == c.defaultAction}
	if len(s.Args) > 0 {
		if e.rules, err = parseArgs(s.Args); err != nil {
			return within(".", err)
		}
	}
	notify := action == linux.SECCOMP_RET_USER_NOTIF
	c.notifies = c.notifies || notify
	for i, name := range s.Names {
		if name == "" {
			return fieldError(fmt.Sprintf(".names[%d]", i), "empty")
		}
		if notify && name == "write" {
			return within(fmt.Sprintf(".names[%d]", i), errNotifyWrite)
		}
		if err := c.addName(name, &e); err != nil {
			return fieldError(fmt.Sprintf(".names[%d]", i), "%s: %w", name, err)
		}
	}
	return nil
}

// addName applies an entry to one system call on every ABI that has it.
func (c *compiler) addName(name string, e *entry) error {
	id, known := linux.LookupSyscallAfter(c.lastID, name)
	if known {
		c.lastID = id
	}
	for i := range c.abis {
		arch := c.abis[i].arch
		nr, ok := 0, false
		if known {
			nr, ok = id.Number(arch)
		}
		if !ok { // one of arm's private calls, perhaps
			nr, ok = linux.SyscallNumber(arch, name)
		}
		if ok {
			if err := c.addNumber(i, nr, e, 0); err != nil {
				return err
			}
		}
		if door, selector, ok := linux.Demultiplexed(arch, name); ok {
			if nr, ok := linux.SyscallNumber(arch, door); ok {
				if err := c.addNumber(i, nr, e, selector); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// addNumber applies an entry to one number of an ABI; selector is not 0 where
// the number is that of socketcall or ipc.
func (c *compiler) addNumber(abi, nr int, e *entry, selector uint64) error {
	a := &c.abis[abi]
	if offset := nr - a.arch.SyscallBase(); offset < tableSize {
		a.last = max(a.last, offset)
	}
	slot := a.slot(nr)
	if e.void {
		return nil
	}
	if len(c.verdicts) >= maxVerdicts {
		return errors.New("too many different rules")
	}
	if len(e.rules) == 0 && selector == 0 {
		c.setAction(slot, e.action)
		return nil
	}
	rules := e.rules
	if len(rules) == 0 {
		rules = [][]condition{nil}
	}
	for _, conditions := range rules {
		if selector != 0 {
			conditions = withSelector(conditions, selector)
		}
		conditions = forWidth(conditions, a.arch.Wide())
		if len(conditions) == 0 {
			c.setAction(slot, e.action)
		} else if err := c.setRule(slot, abi, rule{conditions, e.action}); err != nil {
			return err
		}
	}
	return nil
}

// slot returns the place of a number's verdict.
func (a *abi) slot(nr int) *uint16 {
	if offset := nr - a.arch.SyscallBase(); offset < tableSize {
		return &a.table[offset]
	}
	i := slices.IndexFunc(a.beyond, func(b beyond) bool { return b.nr >= uint32(nr) })
	if i < 0 {
		i = len(a.beyond)
	}
	if i == len(a.beyond) || a.beyond[i].nr != uint32(nr) {
		a.beyond = slices.Insert(a.beyond, i, beyond{nr: uint32(nr)})
	}
	return &a.beyond[i].verdict
}

// setAction decides a call whatever its arguments, unless that was done before.
func (c *compiler) setAction(slot *uint16, action uint32) {
	if *slot == 0 || c.verdicts[*slot].conditional() {
		*slot = uint16(c.intern(action))
	}
}

// setRule adds a rule for a call that is not decided whatever its arguments.
func (c *compiler) setRule(slot *uint16, abi int, r rule) error {
	if *slot == 0 {
		*slot = uint16(len(c.verdicts))
		c.verdicts = append(c.verdicts, verdict{rules: []rule{r}, abi: abi})
		return nil
	}
	v := &c.verdicts[*slot]
	if !v.conditional() {
		return nil
	}
	if len(v.rules) >= maxRules {
		return errors.New("too many rules")
	}
	v.rules = addRule(v.rules, r)
	return nil
}

// settle puts rules into order, and finds verdicts that are the same.
func (c *compiler) settle() {
	for i := range c.verdicts {
		v := &c.verdicts[i]
		v.same = i
		if !v.conditional() {
			continue
		}
		order(v.rules)
		for j := range i {
			w := &c.verdicts[j]
			if w.abi == v.abi && w.conditional() && slices.EqualFunc(v.rules, w.rules, equalRules) {
				v.same = w.same
				break
			}
		}
	}
}

// assemble builds the program: each architecture's section, and the choice
// between them in front.
func (c *compiler) assemble() []Instruction {
	a := &assembler{code: make([]Instruction, 0, 512), returned: make([]returned, 0, 8)}
	sections := make([]target, len(c.abis))
	for i := len(c.abis) - 1; i >= 0; i-- {
		if c.abis[i].arch != linux.ArchX32 {
			sections[i] = c.section(a, i)
		}
	}
	// A call through an ABI the profile does not know kills, as in libseccomp.
	next := returns(linux.SECCOMP_RET_KILL_THREAD)
	for i := len(c.abis) - 1; i >= 0; i-- {
		if c.abis[i].arch != linux.ArchX32 {
			next = a.branch(opEqual, c.abis[i].arch.Audit(), sections[i], next)
		}
	}
	a.load(offsetArch, next)
	return a.program()
}

// section assembles the search for a verdict among the numbers of one audited
// architecture.
func (c *compiler) section(a *assembler, abi int) target {
	spans := c.spans(abi)
	verdicts := make([]target, len(c.verdicts))
	for i := range verdicts {
		verdicts[i] = returns(c.verdicts[i].action)
	}
	e := emitter{assembler: a, fallback: returns(c.defaultAction)}
	for _, s := range spans {
		v := &c.verdicts[s.verdict]
		if v.conditional() && verdicts[s.verdict].at < 0 {
			arch := c.abis[v.abi].arch
			e.wide, e.bigEndian = arch.Wide(), arch.BigEndian()
			verdicts[s.verdict] = e.chain(v.rules)
		}
	}
	t := e.tree(spans, verdicts)
	if t.at < 0 {
		return t
	}
	return a.load(offsetNr, t)
}

// spans lists the verdicts over all numbers of an audited architecture.
func (c *compiler) spans(i int) []span {
	s := c.appendABI(make([]span, 0, 160), i)
	if c.abis[i].arch != linux.ArchX86_64 {
		return s
	}
	// x32 shares x86_64's AUDIT_ARCH; its calls have a bit set.
	for j := range c.abis {
		if c.abis[j].arch == linux.ArchX32 {
			return c.appendABI(s, j)
		}
	}
	s = c.appendSpan(s, linux.X32SyscallBit, c.kill)
	if newer := c.newer(i); newer != 0 {
		// Without that bit, runc takes negative numbers for new calls.
		s = c.appendSpan(s, 1<<31, newer)
		s = c.appendSpan(s, 1<<31|linux.X32SyscallBit, c.kill)
	}
	// -1 is how a tracer skips a call, and no x32 call: it shall not kill.
	return c.appendSpan(s, math.MaxUint32, 0)
}

// newer is the verdict on calls of an ABI that are newer than the profile.
func (c *compiler) newer(abi int) int {
	if c.abis[abi].last < 0 {
		return 0 // it names none
	}
	return c.enosys
}

func (c *compiler) appendABI(s []span, i int) []span {
	a := &c.abis[i]
	base := a.arch.SyscallBase()
	if len(s) == 0 {
		s = c.appendSpan(s, 0, 0)
	}
	for offset := 0; offset <= a.last; offset++ {
		s = c.appendSpan(s, uint32(base+offset), int(a.table[offset]))
	}
	newer := c.newer(i)
	s = c.appendSpan(s, uint32(base+a.last+1), newer)
	for _, b := range a.beyond {
		s = c.appendSpan(s, b.nr, int(b.verdict))
		s = c.appendSpan(s, b.nr+1, newer)
	}
	return s
}

func (c *compiler) appendSpan(s []span, first uint32, verdict int) []span {
	verdict = c.verdicts[verdict].same
	if n := len(s); n > 0 {
		if s[n-1].first == first { // the span before turned out empty
			s = s[:n-1]
			n--
		}
		if n > 0 && s[n-1].verdict == verdict {
			return s
		}
	}
	return append(s, span{first, verdict})
}
