package seccomp

import (
	"math/rand/v2"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tare-oci/tare/runtime/linux"
)

// reference decides a call by reading the profile, without compiling anything.
func reference(p *specs.LinuxSeccomp, native linux.Arch, d Data) uint32 {
	fallback, err := parseAction(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		panic(err)
	}
	arch := referenceArch(p, native, d)
	if arch == linux.ArchUnknown {
		if native == linux.ArchX86_64 && d.Arch == native.Audit() && d.Nr == 0xffffffff {
			return fallback
		}
		negative := d.Nr >= 1<<31 && d.Nr&linux.X32SyscallBit == 0
		if native == linux.ArchX86_64 && d.Arch == native.Audit() && negative && refuses(fallback) && namesAny(p, native) {
			return linux.SECCOMP_RET_ERRNO | linux.ENOSYS
		}
		return linux.SECCOMP_RET_KILL_THREAD
	}
	var candidates []referenceRule
	last, named := -1, false
	for _, s := range p.Syscalls {
		action, err := parseAction(s.Action, s.ErrnoRet)
		if err != nil {
			panic(err)
		}
		for _, name := range s.Names {
			nr, ok := linux.SyscallNumber(arch, name)
			if ok && nr < arch.SyscallBase()+0x1000 {
				last = max(last, nr)
			}
			named = named || ok && uint32(nr) == d.Nr
			if ok && uint32(nr) == d.Nr && action != fallback {
				candidates = append(candidates, referenceRules(s.Args, action, arch)...)
			}
			door, selector, ok := linux.Demultiplexed(arch, name)
			if !ok {
				continue
			}
			nr, ok = linux.SyscallNumber(arch, door)
			if ok {
				last = max(last, nr)
			}
			if ok && uint32(nr) == d.Nr && action != fallback {
				for _, r := range referenceRules(s.Args, action, arch) {
					r.args[0] = &specs.LinuxSeccompArg{Value: selector, Op: specs.OpEqualTo}
					candidates = append(candidates, r)
				}
			}
		}
	}
	if action, ok := referenceChoice(candidates, d, arch); ok {
		return action
	}
	if last >= 0 && int64(d.Nr) > int64(last) && !named && refuses(fallback) {
		return linux.SECCOMP_RET_ERRNO | linux.ENOSYS
	}
	return fallback
}

// namesAny says whether a profile names a call that an architecture has.
func namesAny(p *specs.LinuxSeccomp, arch linux.Arch) bool {
	for _, s := range p.Syscalls {
		for _, name := range s.Names {
			if _, ok := linux.SyscallNumber(arch, name); ok {
				return true
			}
		}
	}
	return false
}

func referenceArch(p *specs.LinuxSeccomp, native linux.Arch, d Data) linux.Arch {
	listed := []linux.Arch{native}
	for _, name := range p.Architectures {
		arch, _ := linux.ParseArch(name)
		if native.Runs(arch) && arch.HasSyscalls() {
			listed = append(listed, arch)
		}
	}
	for _, arch := range listed {
		isX32 := d.Nr&linux.X32SyscallBit != 0 || d.Nr >= 0x80000000
		switch {
		case arch.Audit() != d.Arch:
		case arch == linux.ArchX86_64 && isX32:
		case arch == linux.ArchX32 && !isX32:
		default:
			return arch
		}
	}
	return linux.ArchUnknown
}

type referenceRule struct {
	args   [6]*specs.LinuxSeccompArg
	action uint32
}

func (r referenceRule) count() (n int) {
	for _, a := range r.args {
		if a != nil {
			n++
		}
	}
	return n
}

func referenceRules(args []specs.LinuxSeccompArg, action uint32, arch linux.Arch) []referenceRule {
	var seen [6]int
	for _, a := range args {
		seen[a.Index]++
	}
	separate := false
	for _, n := range seen {
		separate = separate || n > 1
	}
	rules := []referenceRule{{action: action}}
	for i := range args {
		a := args[i]
		if !arch.Wide() {
			a.Value &= 0xffffffff
			a.ValueTwo &= 0xffffffff
		}
		if i > 0 && separate {
			rules = append(rules, referenceRule{action: action})
		}
		if a.Op == specs.OpMaskedEqual && a.Value == 0 {
			continue // compares nothing
		}
		rules[len(rules)-1].args[a.Index] = &a
	}
	return rules
}

// referenceChoice finds the rule that decides: one without conditions if there is, else
// the foremost that matches.
func referenceChoice(rules []referenceRule, d Data, arch linux.Arch) (uint32, bool) {
	var kept []referenceRule
	mixed := false
	for _, r := range rules {
		if r.count() == 0 {
			return r.action, true
		}
		covered := false
		for _, k := range kept {
			covered = covered || referencePrefix(k, r)
		}
		if !covered {
			kept = append(kept, r)
			mixed = mixed || r.action != kept[0].action
		}
	}
	best := -1
	for i, r := range kept {
		if r.matches(d, arch) && (best < 0 || mixed && referenceBefore(r, kept[best])) {
			best = i
		}
	}
	if best < 0 {
		return 0, false
	}
	return kept[best].action, true
}

func (r referenceRule) matches(d Data, arch linux.Arch) bool {
	for i, a := range r.args {
		if a == nil {
			continue
		}
		v := d.Args[i]
		if !arch.Wide() {
			v &= 0xffffffff
		}
		ok := false
		switch a.Op {
		case specs.OpEqualTo:
			ok = v == a.Value
		case specs.OpNotEqual:
			ok = v != a.Value
		case specs.OpLessThan:
			ok = v < a.Value
		case specs.OpLessEqual:
			ok = v <= a.Value
		case specs.OpGreaterThan:
			ok = v > a.Value
		case specs.OpGreaterEqual:
			ok = v >= a.Value
		case specs.OpMaskedEqual:
			ok = v&a.Value == a.ValueTwo&a.Value
		}
		if !ok {
			return false
		}
	}
	return true
}

// referenceKey spells out what a condition's place depends on.
func referenceKey(a *specs.LinuxSeccompArg, index int) [5]uint64 {
	class := map[specs.LinuxSeccompOperator]uint64{
		specs.OpEqualTo: 3, specs.OpNotEqual: 3, specs.OpMaskedEqual: 3,
		specs.OpLessThan: 2, specs.OpLessEqual: 2, specs.OpGreaterThan: 1, specs.OpGreaterEqual: 1,
	}[a.Op]
	within := map[specs.LinuxSeccompOperator]uint64{
		specs.OpEqualTo: 9, specs.OpMaskedEqual: 9, specs.OpNotEqual: 8,
		specs.OpLessThan: 7, specs.OpLessEqual: 6, specs.OpGreaterThan: 5, specs.OpGreaterEqual: 4,
	}[a.Op]
	value, mask := a.Value, ^uint64(0)
	if a.Op == specs.OpMaskedEqual {
		value, mask = a.ValueTwo&a.Value, a.Value
	}
	if class == 2 {
		value = ^value
	}
	return [5]uint64{uint64(index), class, value, within, mask}
}

func (r referenceRule) keys() (keys [][5]uint64) {
	for i, a := range r.args {
		if a != nil {
			keys = append(keys, referenceKey(a, i))
		}
	}
	return keys
}

func referencePrefix(a, b referenceRule) bool {
	x, y := a.keys(), b.keys()
	if len(x) > len(y) {
		return false
	}
	for i := range x {
		if x[i] != y[i] {
			return false
		}
	}
	return true
}

func referenceBefore(a, b referenceRule) bool {
	x, y := a.keys(), b.keys()
	for i := 0; i < len(x) && i < len(y); i++ {
		for j := range x[i] {
			if x[i][j] != y[i][j] {
				return x[i][j] > y[i][j]
			}
		}
	}
	return len(x) > len(y)
}

// generator makes profiles and calls from a stream of choices, which a fuzzer
// or a random source provides.
type generator struct {
	choose func(n int) int
}

func fromRand(r *rand.Rand) generator { return generator{choose: r.IntN} }

func fromBytes(b []byte) generator {
	return generator{choose: func(n int) int {
		if len(b) == 0 {
			return 0
		}
		v := int(b[0])
		b = b[1:]
		if n > 256 && len(b) > 0 {
			v |= int(b[0]) << 8
			b = b[1:]
		}
		return v % n
	}}
}

var (
	someNames = []string{
		"read", "open", "openat", "socket", "connect", "accept4", "socketcall", "ipc", "semop", "shmat", "personality",
		"clone", "clone3", "ioctl", "execve", "mq_notify", "cacheflush", "set_tls", "get_tls", "breakpoint",
		"statx", "openat2", "fsopen", "no_such_call", "setup", "uselib", "getpid", "kill", "close", "dup",
	}
	someValues = []uint64{
		0, 1, 2, 3, 5, 8, 40, 0x7e020000, 0xfffffffe, 0xffffffff, 1 << 32, 1<<32 | 1, 5 << 32, 5<<32 | 5,
		1<<63 - 1, 1 << 63, ^uint64(0),
	}
	someActions = []specs.LinuxSeccompAction{
		specs.ActAllow, specs.ActErrno, specs.ActKill, specs.ActKillThread, specs.ActKillProcess,
		specs.ActTrap, specs.ActTrace, specs.ActLog, specs.ActNotify,
	}
	someOperators = []specs.LinuxSeccompOperator{
		specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual,
		specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual,
	}
)

func pick[T any](g generator, from []T) T { return from[g.choose(len(from))] }

func (g generator) action(allowed []specs.LinuxSeccompAction) (specs.LinuxSeccompAction, *uint) {
	a := pick(g, allowed)
	if (a == specs.ActErrno || a == specs.ActTrace) && g.choose(2) == 0 {
		errno := uint(g.choose(40))
		return a, &errno
	}
	return a, nil
}

func (g generator) profile(native linux.Arch) *specs.LinuxSeccomp {
	p := &specs.LinuxSeccomp{ListenerPath: "/run/agent.sock"}
	p.DefaultAction, p.DefaultErrnoRet = g.action(someActions[:len(someActions)-1])
	for range g.choose(5) {
		arch := linux.Arch(1 + g.choose(23))
		if g.choose(2) == 0 {
			arch = pick(g, []linux.Arch{native, linux.ArchX32, linux.ArchX86, linux.ArchARM})
		}
		p.Architectures = append(p.Architectures, arch.Spec())
	}
	for range g.choose(14) {
		var s specs.LinuxSyscall
		s.Action, s.ErrnoRet = g.action(someActions)
		for range 1 + g.choose(4) {
			s.Names = append(s.Names, pick(g, someNames))
		}
		for range g.choose(4) {
			s.Args = append(s.Args, specs.LinuxSeccompArg{
				Index: uint(g.choose(6) * g.choose(2)), Op: pick(g, someOperators),
				Value: pick(g, someValues), ValueTwo: pick(g, someValues),
			})
		}
		p.Syscalls = append(p.Syscalls, s)
	}
	return p
}

func (g generator) data(p *specs.LinuxSeccomp, native linux.Arch) Data {
	arch := native
	switch {
	case len(p.Architectures) > 0 && g.choose(2) == 0:
		arch, _ = linux.ParseArch(pick(g, p.Architectures))
	case g.choose(20) == 0:
		arch = linux.Arch(1 + g.choose(23))
	}
	d := Data{Arch: arch.Audit()}
	name := pick(g, someNames)
	if len(p.Syscalls) > 0 {
		name = pick(g, pick(g, p.Syscalls).Names)
	}
	nr, ok := linux.SyscallNumber(arch, name)
	if door, _, mux := linux.Demultiplexed(arch, name); mux && g.choose(2) == 0 {
		nr, ok = linux.SyscallNumber(arch, door)
	}
	d.Nr = uint32(nr)
	if !ok || g.choose(4) == 0 {
		d.Nr = uint32(g.choose(700))
	}
	switch g.choose(24) {
	case 0:
		d.Nr ^= linux.X32SyscallBit
	case 1:
		d.Nr = 0xffffffff
	case 2:
		d.Nr++
	case 3:
		d.Nr--
	case 4:
		d.Nr = 0x0f0000 + uint32(g.choose(8))
	}
	for i := range d.Args {
		d.Args[i] = pick(g, someValues) + uint64(g.choose(3)) - 1
	}
	return d
}
