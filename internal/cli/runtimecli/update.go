package runtimecli

import (
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/spec"
)

// maxResources bounds what update reads.
const maxResources = 1 << 20

func updateCommand() command {
	return command{name: "update", args: "ID", short: "change the limits of a container", min: 1, max: 1,
		flags: func(flags *flag.FlagSet) func(*call) (int, error) {
			u := &updating{r: specs.LinuxResources{Memory: &specs.LinuxMemory{}, CPU: &specs.LinuxCPU{}, Pids: &specs.LinuxPids{},
				BlockIO: &specs.LinuxBlockIO{}}}
			u.declare(flags)
			return func(c *call) (int, error) {
				if err := u.read(); err != nil {
					return 1, err
				}
				for _, w := range cgroup.Warnings(&u.r) {
					c.log.warn(w)
				}
				if u.obsolete != nil {
					c.log.warn("Kernel memory settings are ignored and will be removed")
				}
				return 0, c.store().Update(c, c.args[0], &u.r, &u.rdt)
			}
		}}
}

// updating is what the flags of update ask for.
type updating struct {
	r    specs.LinuxResources
	file string // instead of the other flags
	rdt  specs.LinuxIntelRdt
	// obsolete is what nobody looks at.
	obsolete *int64
}

func (u *updating) declare(flags *flag.FlagSet) {
	const usage = "`file` with the resources to change, in the form of linux.resources; - is standard input; all other flags are ignored then"
	flags.StringVar(&u.file, "resources", "", usage)
	flags.StringVar(&u.file, "r", "", "short for --resources")
	cpu, m := u.r.CPU, u.r.Memory
	numberFlag(flags, "cpu-period", "`microseconds` of a period", &cpu.Period, parseUint)
	numberFlag(flags, "cpu-quota", "`microseconds` of CPU time in a period; -1 is no limit", &cpu.Quota, parseInt)
	numberFlag(flags, "cpu-burst", "`microseconds` that unused quota may add up to", &cpu.Burst, parseUint)
	numberFlag(flags, "cpu-share", "`weight` against other containers, 1024 is usual", &cpu.Shares, parseUint)
	numberFlag(flags, "cpu-rt-period", "`microseconds` of a realtime period", &cpu.RealtimePeriod, parseUint)
	numberFlag(flags, "cpu-rt-runtime", "`microseconds` of realtime in a period", &cpu.RealtimeRuntime, parseInt)
	numberFlag(flags, "cpu-idle", "1 for what runs only when nothing else would, 0 for what is usual", &cpu.Idle, parseInt)
	numberFlag(flags, "pids-limit", "`number` of processes; -1 is no limit", &u.r.Pids.Limit, parseInt)
	numberFlag(flags, "memory", "`bytes`, or with a unit as 512m; -1 is no limit", &m.Limit, parseSize)
	numberFlag(flags, "memory-reservation", "`bytes` to leave it under pressure", &m.Reservation, parseSize)
	numberFlag(flags, "memory-swap", "`bytes` of memory and swap together; -1 is no limit", &m.Swap, parseSize)
	numberFlag(flags, "kernel-memory", "ignored", &u.obsolete, parseSize)
	numberFlag(flags, "kernel-memory-tcp", "ignored", &u.obsolete, parseSize)
	numberFlag(flags, "blkio-weight", "`weight` of input and output, 10 to 1000", &u.r.BlockIO.Weight, func(s string) (uint16, error) {
		n, err := strconv.ParseUint(s, 10, 16)
		return uint16(n), err
	})
	flags.StringVar(&cpu.Cpus, "cpuset-cpus", "", "the `CPUs` it may use, as 0-3,7")
	flags.StringVar(&cpu.Mems, "cpuset-mems", "", "the memory `nodes` it may use, as 0-1")
	flags.StringVar(&u.rdt.L3CacheSchema, "l3-cache-schema", "", "the `share` of caches, as L3:0=ff;1=c0 (Intel RDT)")
	flags.StringVar(&u.rdt.MemBwSchema, "mem-bw-schema", "", "the `share` of memory bandwidth, as MB:0=20;1=70 (Intel RDT)")
}

func parseUint(s string) (uint64, error) { return strconv.ParseUint(s, 10, 64) }

func parseInt(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) }

// numberFlag declares a flag for an optional number. An empty value leaves it as it is.
func numberFlag[T any](flags *flag.FlagSet, name, usage string, to **T, parse func(string) (T, error)) {
	flags.Func(name, usage, func(s string) error {
		if s == "" {
			return nil
		}
		n, err := parse(s)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %w", name, err)
		}
		*to = &n
		return nil
	})
}

// read reads the resources from where --resources says.
func (u *updating) read() error {
	if u.file == "" {
		return nil
	}
	in := os.Stdin
	if u.file != "-" {
		f, err := os.Open(u.file)
		if err != nil {
			return fmt.Errorf("update: %w", err)
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxResources+1))
	if err == nil && len(data) > maxResources {
		err = fmt.Errorf("more than %d bytes", maxResources)
	}
	var r *specs.LinuxResources
	if err == nil {
		r, err = spec.DecodeResources(data)
	}
	if err != nil {
		return fmt.Errorf("update: --resources %s: %w", u.file, err)
	}
	u.r = *r
	if u.r.Memory == nil {
		u.r.Memory = &specs.LinuxMemory{}
	}
	return nil
}

// parseSize reads a size as runc does: a number, perhaps with a fraction, and a binary unit b, k, m, g, t or p in either case, which
// "b" or "ib" may follow; "-1" is no limit.
func parseSize(s string) (int64, error) {
	if s == "-1" {
		return -1, nil
	}
	end := strings.LastIndexAny(s, "0123456789.") + 1
	number, unit := s[:end], strings.ToLower(strings.TrimPrefix(s[end:], " "))
	scale := 1.0
	if unit != "" && unit != "b" {
		i := strings.IndexByte("kmgtp", unit[0])
		if rest := unit[1:]; i < 0 || rest != "" && rest != "b" && rest != "ib" {
			return 0, fmt.Errorf("invalid suffix: %q", s[end:])
		}
		scale = math.Pow(1024, float64(i+1))
	}
	if strings.Trim(number, "0123456789.") != "" { // no sign, no exponent, no hexadecimal
		return 0, fmt.Errorf("invalid size: %q", s)
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || n*scale >= math.MaxInt64 {
		return 0, fmt.Errorf("invalid size: %q", s)
	}
	return int64(n * scale), nil
}
