package cgroup

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/cgroup/internal/dbus"
	"github.com/tare-oci/tare/runtime/host"
	"github.com/tare-oci/tare/runtime/spec"
)

// property is one of a systemd unit (systemd.resource-control(5), org.freedesktop.systemd1(5)).
type property struct {
	name  string
	value dbus.Variant
}

func text(name, s string) property { return property{name, dbus.Variant{Signature: "s", Value: s}} }
func flag(name string, b bool) property {
	return property{name, dbus.Variant{Signature: "b", Value: b}}
}
func count(name string, n uint64) property {
	return property{name, dbus.Variant{Signature: "t", Value: n}}
}

// encoded is the list as a(sv).
func encoded(properties []property) []any {
	list := make([]any, len(properties))
	for i, p := range properties {
		list[i] = []any{p.name, p.value}
	}
	return list
}

// counts are the properties for control files of one number.
var counts = [...]struct{ file, property string }{
	{"memory.max", "MemoryMax"}, {"memory.high", "MemoryHigh"}, {"memory.low", "MemoryLow"}, {"memory.min", "MemoryMin"},
	{"memory.swap.max", "MemorySwapMax"}, {"memory.limit_in_bytes", "MemoryLimit"}, {"cpu.weight", "CPUWeight"}, {"cpu.shares", "CPUShares"},
	{"blkio.weight", "BlockIOWeight"}, {"pids.max", "TasksMax"},
}

// limits says what systemd can of resources, which is by no means all. Devices are for a new unit only.
func (m *systemd) limits(r *specs.LinuxResources, devices bool) ([]property, error) {
	unified := onV1
	if m.machine.CgroupMode == host.CgroupV2 {
		unified = onV2
	}
	plan := planFor(r, unified)
	if plan.err != nil {
		return nil, plan.err
	}
	properties, err := plan.properties()
	if err != nil || !devices || m.machine.InUserNamespace || m.user {
		return properties, err
	}
	var list []specs.LinuxDeviceCgroup
	if r != nil {
		list = r.Devices
	}
	rules, err := deviceRules(list)
	if err != nil {
		return nil, err
	}
	return append(properties, deviceProperties(rules)...), nil
}

// properties translates the writes to control files, wherever they come from, to what systemd then writes there.
func (p *plan) properties() (list []property, err error) {
	var quota, period uint64 // version 1 has a file for each
	add := func(s setting) error {
		value := strings.TrimSpace(s.value)
		for _, c := range counts {
			if c.file != s.file {
				continue
			}
			n, err := parseNumber(value)
			if s.file == "pids.max" {
				n = max(n, 1) // systemd has no 0
			}
			list = append(list, count(c.property, n))
			return err
		}
		switch s.file {
		case "cpu.max":
			first, second, _ := strings.Cut(value, " ")
			if quota, err = parseNumber(first); err == nil && second != "" {
				period, err = parseNumber(second)
			}
			return err
		case "cpu.cfs_quota_us":
			quota, err = parseNumber(value)
			return err
		case "cpu.cfs_period_us":
			period, err = parseNumber(value)
			return err
		case "cpuset.cpus", "cpuset.mems":
			bits, err := cpuBits(value)
			name := map[string]string{"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}[s.file]
			list = append(list, property{name, dbus.Variant{Signature: "ay", Value: bits}})
			return err
		}
		return nil
	}
	for _, g := range p.groups {
		for _, s := range g {
			if err := add(s); err != nil {
				return nil, fieldError(s.field, err)
			}
		}
	}
	return append(list, quotaProperties(quota, period)...), nil
}

// quotaProperties are for so many microseconds in a period; 0 is what is not set. systemd counts in hundredths of a CPU, so that it gets a
// little more than asked for; the file then gets what was.
func quotaProperties(quota, period uint64) (list []property) {
	if period != 0 {
		list = append(list, count("CPUQuotaPeriodUSec", period))
	}
	if quota == 0 {
		return list
	}
	perSecond := uint64(math.MaxUint64)
	if quota <= math.MaxUint64/1_000_000 {
		if period == 0 {
			period = 100000 // the kernel's default
		}
		const hundredth = 10_000 // microseconds of a second
		perSecond = (quota*1_000_000/period + hundredth - 1) / hundredth * hundredth
	}
	return append(list, count("CPUQuotaPerSecUSec", perSecond))
}

// cpuBits is a list such as "0-3,7" as a set of bits, the lowest first.
func cpuBits(list string) ([]any, error) {
	numbers, err := parseList(strings.ReplaceAll(list, " ", ""))
	if err != nil {
		return nil, err
	}
	var set []byte
	for _, n := range numbers {
		for len(set) <= int(n/8) {
			set = append(set, 0)
		}
		set[n/8] |= 1 << (n % 8)
	}
	bits := make([]any, len(set))
	for i := range set {
		bits[i] = set[i]
	}
	return bits, nil
}

// deviceProperties tells systemd of rules for devices. It knows no rules that deny: on version 2 our program is enough then, and what
// version 1 cannot have either is an error elsewhere.
func deviceProperties(rules []deviceRule) []property {
	policy := func(name string, allowed ...any) []property {
		const list = "a(ss)"
		all := []property{{"DeviceAllow", dbus.Variant{Signature: list, Value: []any{}}}, text("DevicePolicy", name)} // the empty one clears it
		if len(allowed) > 0 {
			all = append(all, property{"DeviceAllow", dbus.Variant{Signature: list, Value: allowed}})
		}
		return all
	}
	rules, err := exceptions(rules)
	if err != nil || rules[0].allow {
		return policy("auto")
	}
	var allowed []any
	for _, r := range rules[1:] {
		kind := map[byte]string{'b': "block", 'c': "char"}[r.typ]
		var path string
		switch {
		case r.major == any64 && r.minor == any64:
			path = kind + "-*"
		case r.major == any64:
			return policy("auto")
		case r.minor == any64:
			path = kind + "-" + strconv.FormatInt(r.major, 10)
		default:
			path = fmt.Sprintf("/dev/%s/%d:%d", kind, r.major, r.minor)
		}
		allowed = append(allowed, []any{path, r.access.String()})
	}
	return policy("strict", allowed...)
}

// annotated are the properties that annotations org.systemd.property.NAME ask for, as with runc.
func annotated(annotations map[string]string) (list []property, err error) {
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		name, ok := strings.CutPrefix(key, PropertyPrefix)
		if !ok {
			continue
		}
		bad := func(err error) error {
			return &spec.FieldError{Field: fmt.Sprintf("annotations[%q]", key), Err: err}
		}
		if len(name) < 3 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
			return nil, bad(fmt.Errorf("%q is no name of a property", name))
		}
		v, err := dbus.ParseVariant(annotations[key])
		if err != nil {
			return nil, bad(err)
		}
		// Over D-Bus systemd has seconds in microseconds, under a name of their own.
		if stem, ok := strings.CutSuffix(name, "Sec"); ok && stem != "" && stem[len(stem)-1] >= 'a' && stem[len(stem)-1] <= 'z' {
			name = stem + "USec"
			if v, err = microseconds(v); err != nil {
				return nil, bad(err)
			}
		}
		list = append(list, property{name, v})
	}
	return list, nil
}

func microseconds(v dbus.Variant) (dbus.Variant, error) {
	seconds, err := strconv.ParseFloat(fmt.Sprint(v.Value), 64)
	if err != nil || v.Signature == "s" || seconds < 0 || seconds > math.MaxInt64/1e6 {
		return dbus.Variant{}, fmt.Errorf("%v is no number of seconds", v.Value)
	}
	return dbus.Variant{Signature: "t", Value: uint64(seconds * 1e6)}, nil
}
