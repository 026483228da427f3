package cgroup

import (
	"fmt"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// access is a set of what may be done with a device. Its bits are those of the kernel's bpf_cgroup_dev_ctx.
type access uint8

const (
	accessMknod access = 1 << iota
	accessRead
	accessWrite
	accessAll = accessMknod | accessRead | accessWrite
)

// any64 is the wildcard for a device number.
const any64 = int64(-1)

// deviceRule allows or denies some access to a device or a class of devices.
type deviceRule struct {
	allow        bool
	typ          byte // 'b' or 'c'; 'a' only in the rule for everything
	major, minor int64
	access       access
}

// everything is the rule that speaks of all devices; whatever came before it has no say.
func everything(allow bool) deviceRule {
	return deviceRule{allow: allow, typ: 'a', major: any64, minor: any64, access: accessAll}
}

func (r deviceRule) isEverything() bool { return r == everything(r.allow) }

// covers reports whether r speaks of every device that o speaks of; overlaps whether there is one that both do. Neither looks at access.
func (r deviceRule) covers(o deviceRule) bool {
	return (r.typ == 'a' || r.typ == o.typ) && (r.major == any64 || r.major == o.major) && (r.minor == any64 || r.minor == o.minor)
}

func (r deviceRule) overlaps(o deviceRule) bool {
	return r.typ == o.typ && (r.major == any64 || o.major == any64 || r.major == o.major) &&
		(r.minor == any64 || o.minor == any64 || r.minor == o.minor)
}

// String prints the rule as version 1's files have it: "c 1:3 rwm".
func (r deviceRule) String() string {
	number := func(n int64) string {
		if n == any64 {
			return "*"
		}
		return strconv.FormatInt(n, 10)
	}
	return string(rune(r.typ)) + " " + number(r.major) + ":" + number(r.minor) + " " + r.access.String()
}

// String is made of the letters r, w and m.
func (a access) String() string {
	s := ""
	for i, c := range [...]byte{'r', 'w', 'm'} {
		if a&[...]access{accessRead, accessWrite, accessMknod}[i] != 0 {
			s += string(rune(c))
		}
	}
	return s
}

// allowAll reports whether ordered rules allow everything.
func allowAll(rules []deviceRule) bool { return len(rules) == 1 && rules[0].allow }

// defaultDevices are allowed in every container, after the configuration's own rules, as runc does: making any node, the devices
// that config-linux.md ("Default Devices") gives every container, terminals, and /dev/net/tun.
func defaultDevices() []deviceRule {
	return []deviceRule{
		{true, 'c', any64, any64, accessMknod},
		{true, 'b', any64, any64, accessMknod},
		{true, 'c', 1, 3, accessAll},       // /dev/null
		{true, 'c', 1, 8, accessAll},       // /dev/random
		{true, 'c', 1, 7, accessAll},       // /dev/full
		{true, 'c', 5, 0, accessAll},       // /dev/tty
		{true, 'c', 1, 5, accessAll},       // /dev/zero
		{true, 'c', 1, 9, accessAll},       // /dev/urandom
		{true, 'c', 136, any64, accessAll}, // /dev/pts/*
		{true, 'c', 5, 2, accessAll},       // /dev/ptmx
		{true, 'c', 10, 200, accessAll},    // /dev/net/tun
	}
}

// deviceRules returns the rules of a container in order: everything denied, then the configuration's, then the defaults. Of rules before one
// for everything nothing is left. A later rule overrides an earlier one in what both speak of.
func deviceRules(list []specs.LinuxDeviceCgroup) ([]deviceRule, error) {
	rules := []deviceRule{everything(false)}
	for i, d := range list {
		r, err := parseDeviceRule(d)
		if err != nil {
			return nil, fieldError(fmt.Sprintf("devices[%d]", i), err)
		}
		switch {
		case r.isEverything():
			rules = append(rules[:0], r)
		case r.typ == 'a':
			// Both kinds. The kernel would take any line that begins with "a" for everything, whatever follows.
			b, c := r, r
			b.typ, c.typ = 'b', 'c'
			rules = append(rules, b, c)
		default:
			rules = append(rules, r)
		}
	}
	if allowAll(rules) {
		return rules, nil // the defaults are in it
	}
	return append(rules, defaultDevices()...), nil
}

func parseDeviceRule(d specs.LinuxDeviceCgroup) (deviceRule, error) {
	r := deviceRule{allow: d.Allow, major: any64, minor: any64}
	switch d.Type {
	case "", "a":
		r.typ = 'a'
	case "b", "c":
		r.typ = d.Type[0]
	case "u": // mknod's other name for "c"
		r.typ = 'c'
	default:
		return r, fmt.Errorf("type: %q is not a, b or c", d.Type)
	}
	for _, n := range []struct {
		name string
		from *int64
		to   *int64
	}{{"major", d.Major, &r.major}, {"minor", d.Minor, &r.minor}} {
		if n.from == nil {
			continue
		}
		if *n.from < any64 || *n.from > 1<<32-1 {
			return r, fmt.Errorf("%s: %d is not a device number", n.name, *n.from)
		}
		*n.to = *n.from // engines write -1 for all
	}
	for _, c := range d.Access {
		switch c {
		case 'r':
			r.access |= accessRead
		case 'w':
			r.access |= accessWrite
		case 'm':
			r.access |= accessMknod
		default:
			return r, fmt.Errorf("access: %q is not made of r, w and m", d.Access)
		}
	}
	if r.access == 0 {
		r.access = accessAll // the field is optional
	}
	return r, nil
}

// exceptions turns ordered rules into what version 1 can hold: one rule for everything, and exceptions from it that all say
// the opposite. The kernel ignores a rule that would cut a hole into a wider exception, so that is an error here.
func exceptions(rules []deviceRule) ([]deviceRule, error) {
	base := rules[0]
	var list []deviceRule
next:
	for _, r := range rules[1:] {
		if r.allow != base.allow {
			for i := range list {
				if e := &list[i]; e.typ == r.typ && e.major == r.major && e.minor == r.minor {
					e.access |= r.access
					continue next
				}
			}
			list = append(list, r)
			continue
		}
		kept := list[:0]
		for _, e := range list {
			if e.overlaps(r) && e.access&r.access != 0 {
				if !r.covers(e) {
					return nil, fieldError("devices", fmt.Errorf("cgroup v1 cannot take %q out of %q: %w", r, e, ErrUnsupported))
				}
				if e.access &^= r.access; e.access == 0 {
					continue
				}
			}
			kept = append(kept, e)
		}
		list = kept
	}
	return append([]deviceRule{base}, list...), nil
}

// writeDevicesV1 sets the rules of a devices cgroup, as exceptions returns them. The kernel takes one rule a write.
func writeDevicesV1(dir string, rules []deviceRule) error {
	base, except := "/devices.deny", "/devices.allow"
	if rules[0].allow {
		base, except = except, base
	}
	err := writeFile(dir+base, "a")
	if err == nil && len(rules) > 1 {
		lines := make([]string, len(rules)-1)
		for i, r := range rules[1:] {
			lines[i] = r.String()
		}
		err = writeFile(dir+except, lines...)
	}
	if err != nil {
		return fieldError("devices", err)
	}
	return nil
}
