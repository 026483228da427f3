package cgroup

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func parseRules(t *testing.T, text string) []specs.LinuxDeviceCgroup {
	t.Helper()
	var list []specs.LinuxDeviceCgroup
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatal(err)
	}
	return list
}

const defaultsText = "c *:* m; b *:* m; c 1:3 rwm; c 1:8 rwm; c 1:7 rwm; c 5:0 rwm; c 1:5 rwm; c 1:9 rwm; c 136:* rwm; c 5:2 rwm; c 10:200 rwm"

func TestDeviceRulesV1(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`[]`, "deny a *:* rwm; " + defaultsText},
		{`[{"allow":false,"access":"rwm"}]`, "deny a *:* rwm; " + defaultsText},
		{`[{"allow":true,"access":"rwm"}]`, "allow a *:* rwm"},
		{`[{"allow":true}]`, "allow a *:* rwm"},
		{`[{"allow":false},{"allow":true,"type":"c","major":1,"minor":3,"access":"r"}]`, "deny a *:* rwm; c 1:3 rwm; c *:* m; b *:* m; c 1:8 rwm; c 1:7 rwm; c 5:0 rwm; c 1:5 rwm; c 1:9 rwm; c 136:* rwm; c 5:2 rwm; c 10:200 rwm"},
		{`[{"allow":true,"type":"b","major":8,"minor":-1,"access":"rw"}]`, "deny a *:* rwm; b 8:* rw; " + defaultsText},
		{`[{"allow":true,"type":"b","major":8,"minor":1,"access":"rw"},{"allow":false,"type":"b","major":8,"access":"w"}]`, "deny a *:* rwm; b 8:1 r; " + defaultsText},
		{`[{"allow":true,"type":"a","major":7,"minor":7,"access":"r"}]`, "deny a *:* rwm; b 7:7 r; c 7:7 r; " + defaultsText},
		{`[{"allow":true},{"allow":false,"type":"b"}]`, "allow a *:* rwm; b *:* rw"},
		{`[{"allow":true,"type":"b","major":8,"access":"rw"},{"allow":false,"type":"b","major":8,"minor":0,"access":"w"}]`,
			`linux.resources.devices: cgroup v1 cannot take "b 8:0 w" out of "b 8:* rw": not supported here`},
		{`[{"allow":true,"type":"x"}]`, `linux.resources.devices[0]: type: "x" is not a, b or c`},
		{`[{},{"access":"rx"}]`, `linux.resources.devices[1]: access: "rx" is not made of r, w and m`},
		{`[{"major":-2}]`, `linux.resources.devices[0]: major: -2 is not a device number`},
	} {
		rules, err := deviceRules(parseRules(t, c.in))
		if err == nil {
			rules, err = exceptions(rules)
		}
		var got string
		if err != nil {
			got = strings.TrimPrefix(err.Error(), "config.json: ")
		} else {
			words := []string{map[bool]string{true: "allow ", false: "deny "}[rules[0].allow] + rules[0].String()}
			for _, r := range rules[1:] {
				words = append(words, r.String())
			}
			got = strings.Join(words, "; ")
		}
		if got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.in, got, c.want)
		}
	}
}

// request is one question to the device controller.
type request struct {
	typ          byte
	major, minor int64
	access       access
}

// allowed is the meaning of ordered rules: for each kind of access the last rule that speaks of it decides.
func allowed(rules []deviceRule, q request) bool {
	for bit := accessMknod; bit <= accessWrite; bit <<= 1 {
		if q.access&bit == 0 {
			continue
		}
		ok := false
		for _, r := range rules {
			if r.covers(deviceRule{typ: q.typ, major: q.major, minor: q.minor}) && r.access&bit != 0 {
				ok = r.allow
			}
		}
		if !ok {
			return false
		}
	}
	return true
}

// allowedV1 is what the kernel makes of a base rule and exceptions (security/device_cgroup.c): when it denies by default one exception must
// allow all that is asked for, when it allows by default an exception for any of it denies.
func allowedV1(rules []deviceRule, q request) bool {
	for _, e := range rules[1:] {
		if !e.covers(deviceRule{typ: q.typ, major: q.major, minor: q.minor}) {
			continue
		}
		if !rules[0].allow && q.access&^e.access == 0 {
			return true
		}
		if rules[0].allow && q.access&e.access != 0 {
			return false
		}
	}
	return rules[0].allow
}

// runProgram interprets the few instructions that device programs are made of.
func runProgram(t *testing.T, prog []insn, q request) bool {
	kind := uint32(devChar)
	if q.typ == 'b' {
		kind = devBlock
	}
	ctx := map[int16]uint64{ctxAccess: uint64(q.access)<<16 | uint64(kind), ctxMajor: uint64(uint32(q.major)), ctxMinor: uint64(uint32(q.minor))}
	var r [6]uint64
	for pc, steps := 0, 0; ; pc++ {
		if steps++; pc >= len(prog) || steps > len(prog) {
			t.Fatalf("ran off the program at %d", pc)
		}
		in := prog[pc]
		jump := false
		switch in.op {
		case opLoad32:
			r[in.dst] = ctx[in.off]
		case opMov:
			r[in.dst] = uint64(int64(in.imm))
		case opMov32X:
			r[in.dst] = uint64(uint32(r[in.src]))
		case opAnd32:
			r[in.dst] = uint64(uint32(r[in.dst]) & uint32(in.imm))
		case opRsh32:
			r[in.dst] = uint64(uint32(r[in.dst]) >> uint32(in.imm))
		case opJne32:
			jump = uint32(r[in.dst]) != uint32(in.imm)
		case opJset:
			jump = r[in.dst]&uint64(in.imm) != 0
		case opJump:
			jump = true
		case opExit:
			return r[0] == 1
		default:
			t.Fatalf("unknown instruction %+v", in)
		}
		if jump {
			pc += int(in.off)
		}
	}
}

func randomRules(rng *rand.Rand) []deviceRule {
	number := func() int64 { return rng.Int64N(4) - 1 }
	rules := []deviceRule{everything(rng.IntN(2) == 0)}
	for range rng.IntN(8) {
		rules = append(rules, deviceRule{
			allow: rng.IntN(2) == 0, typ: "bc"[rng.IntN(2)], major: number(), minor: number(), access: access(1 + rng.IntN(7)),
		})
	}
	return rules
}

func eachRequest(f func(request)) {
	for _, typ := range []byte("bc") {
		for major := range int64(4) {
			for minor := range int64(4) {
				for a := access(1); a <= accessAll; a++ {
					f(request{typ, major, minor, a})
				}
			}
		}
	}
}

// TestDeviceRulesMeanTheSame holds the eBPF program and version 1's exceptions to the meaning of the ordered rules.
func TestDeviceRulesMeanTheSame(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	expressible := 0
	for range 3000 {
		rules := randomRules(rng)
		prog, err := deviceProgram(rules)
		if err != nil {
			t.Fatal(err)
		}
		v1, err := exceptions(append([]deviceRule(nil), rules...))
		if err == nil {
			expressible++
		}
		eachRequest(func(q request) {
			want := allowed(rules, q)
			if got := runProgram(t, prog, q); got != want {
				t.Fatalf("%v %+v: the program says %v, the rules %v", rules, q, got, want)
			}
			if err != nil {
				return
			}
			got := allowedV1(v1, q)
			single := q.access&(q.access-1) == 0
			if got && !want || single && got != want {
				t.Fatalf("%v %+v: version 1's %v says %v, the rules %v", rules, q, v1, got, want)
			}
		})
	}
	if expressible < 300 {
		t.Errorf("only %d of 3000 rule lists can be had on version 1", expressible)
	}
}

// TestDeviceProgramLoads has the kernel verify programs, whatever cgroup version it runs.
func TestDeviceProgramLoads(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	lists := [][]deviceRule{{everything(false)}, {everything(true)}}
	for range 20 {
		lists = append(lists, randomRules(rng))
	}
	long := []deviceRule{everything(false)}
	for i := range int64(500) {
		long = append(long, deviceRule{i%2 == 0, 'c', i, 1<<32 - 1, accessRead})
	}
	for _, rules := range append(lists, long) {
		prog, err := deviceProgram(rules)
		if err != nil {
			t.Fatal(err)
		}
		fd, err := bpfLoadDevice(encode(prog))
		if err != nil {
			t.Fatalf("%v: %v", rules, err)
		}
		unix.Close(fd)
	}
	if _, err := deviceProgram(make([]deviceRule, maxDeviceRules+1)); err == nil {
		t.Error("no error for too many rules")
	}
}
