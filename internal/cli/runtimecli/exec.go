package runtimecli

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/foreground"
	"github.com/tare-oci/tare/runtime/lifecycle"
	"github.com/tare-oci/tare/runtime/spec"
)

// exitExecFailed is the status of an exec that has run nothing, as of runc and
// of shells; 1 could be the program's own.
const exitExecFailed = 255

// execFlags are what the command line says of a process in place of, or in
// addition to, the configuration of the container's own.
type execFlags struct {
	lifecycle.ExecOptions
	process    string
	cwd        string
	env        stringList
	tty        bool
	user       string
	groups     stringList
	label      string
	apparmor   string
	noNewPrivs boolFlag
	caps       stringList
	cgroups    stringList
	detach     bool
	command    []string
}

// A stringList is a flag that may be repeated.
type stringList []string

func (l *stringList) String() string { return strings.Join(*l, ",") }

func (l *stringList) Set(s string) error {
	*l = append(*l, s)
	return nil
}

// A boolFlag knows whether it was given.
type boolFlag struct{ given, value bool }

func (b *boolFlag) String() string   { return strconv.FormatBool(b.value) }
func (b *boolFlag) IsBoolFlag() bool { return true }

func (b *boolFlag) Set(s string) (err error) {
	b.value, err = strconv.ParseBool(s)
	b.given = true
	return err
}

func execCommand() command {
	return command{name: "exec", args: "ID COMMAND [ARG…]", short: "run one more program in a container", min: 1, max: math.MaxInt, verbatim: true,
		flags: func(flags *flag.FlagSet) func(*call) (int, error) {
			o := &execFlags{}
			o.declare(flags)
			return func(c *call) (int, error) {
				o.command = c.args[1:]
				status, err := o.run(c)
				if err != nil {
					return exitExecFailed, fmt.Errorf("exec failed: %w", err)
				}
				return status, nil
			}
		}}
}

func (o *execFlags) declare(flags *flag.FlagSet) {
	flags.StringVar(&o.ConsoleSocket, "console-socket", "", "unix `socket` that receives the terminal")
	flags.StringVar(&o.PIDFDSocket, "pidfd-socket", "", "unix `socket` that receives a descriptor of the process")
	flags.StringVar(&o.cwd, "cwd", "", "working `directory` in the container")
	flags.Var(&o.cgroups, "cgroup", "run in a control group below the container's: `[CONTROLLER[,…]:]PATH`; may be repeated")
	flags.StringVar(&o.label, "process-label", "", "SELinux `label` of the process")
	flags.StringVar(&o.apparmor, "apparmor", "", "AppArmor `profile` of the process")
	flags.Var(&o.noNewPrivs, "no-new-privs", "whether the process can get no further privileges")
	flags.StringVar(&o.PIDFile, "pid-file", "", "`file` to write the process id to")
	flags.IntVar(&o.PreserveFDs, "preserve-fds", 0, "pass `N` descriptors from 3 up to the process")
	flags.BoolVar(&o.IgnorePaused, "ignore-paused", false, "in a paused container, wait until it goes on")
	for _, f := range []struct {
		name, short, usage string
		value              flag.Value
	}{
		{"env", "e", "environment variable `NAME=VALUE`; may be repeated", &o.env},
		{"additional-gids", "g", "further `group` of the process; may be repeated", &o.groups},
		{"cap", "c", "further `capability` of the process; may be repeated", &o.caps},
	} {
		flags.Var(f.value, f.name, f.usage)
		flags.Var(f.value, f.short, "short for --"+f.name)
	}
	for _, f := range []struct {
		name, short, usage string
		value              *string
	}{
		{"user", "u", "`UID[:GID]` of the process", &o.user},
		{"process", "p", "`file` with a process.json to use instead of all that; - for standard input", &o.process},
	} {
		flags.StringVar(f.value, f.name, "", f.usage)
		flags.StringVar(f.value, f.short, "", "short for --"+f.name)
	}
	for _, f := range []struct {
		name, short, usage string
		value              *bool
	}{
		{"tty", "t", "give the process a terminal", &o.tty},
		{"detach", "d", "do not wait for the process to end", &o.detach},
	} {
		flags.BoolVar(f.value, f.name, false, f.usage)
		flags.BoolVar(f.value, f.short, false, "short for --"+f.name)
	}
}

func (o *execFlags) run(c *call) (status int, err error) {
	o.ID = c.args[0]
	o.Stdio = [3]*os.File{os.Stdin, os.Stdout, os.Stderr}
	o.Warn, o.Debug = c.log.warn, c.log.debugger()
	o.Process = o.makeProcess
	if o.Cgroups, err = parseSubCgroups(o.cgroups); err != nil {
		return 0, err
	}
	if o.detach {
		_, err := c.store().Exec(c, o.ExecOptions)
		return 0, err
	}
	return foreground.Exec(c, c.store(), o.ExecOptions)
}

// makeProcess is what the flags make of the container's own process.
func (o *execFlags) makeProcess(own *specs.Process) (p *specs.Process, err error) {
	if o.process != "" {
		if p, err = loadProcess(o.process); err != nil {
			return nil, err
		}
	} else if p, err = o.change(own); err != nil {
		return nil, err
	}
	switch wanted := o.detach && p.Terminal; {
	case wanted && o.ConsoleSocket == "":
		return nil, errors.New("cannot allocate tty if the runtime will detach without setting console socket")
	case !wanted && o.ConsoleSocket != "":
		return nil, errors.New("cannot use console socket if the runtime will not detach or allocate tty")
	}
	return p, nil
}

// loadProcess reads a process.json from a file, from standard input, or from a
// pipe, as which a shell's <(command) comes.
func loadProcess(path string) (*specs.Process, error) {
	in := os.Stdin
	if path != "-" {
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
			return spec.LoadProcess(path)
		}
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("--process: %w", err)
		}
		defer f.Close()
		in = f
	}
	const maxBytes = 16 << 20
	data, err := io.ReadAll(io.LimitReader(in, maxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("--process %s: %w", path, err)
	}
	return spec.DecodeProcess(data)
}

// change applies the flags to a process.
func (o *execFlags) change(p *specs.Process) (*specs.Process, error) {
	if len(o.command) == 0 {
		return nil, errors.New("exec args cannot be empty")
	}
	p.Args, p.Terminal = o.command, o.tty
	for _, f := range []struct {
		value string
		field *string
	}{{o.cwd, &p.Cwd}, {o.apparmor, &p.ApparmorProfile}, {o.label, &p.SelinuxLabel}} {
		if f.value != "" {
			*f.field = f.value
		}
	}
	p.Env = append(p.Env, o.env...)
	if o.noNewPrivs.given {
		p.NoNewPrivileges = o.noNewPrivs.value
	}
	o.addCaps(p)
	if o.user != "" {
		if err := setUser(&p.User, o.user); err != nil {
			return nil, err
		}
	}
	for _, g := range o.groups {
		gid, err := parseID(g)
		if err != nil {
			return nil, fmt.Errorf("--additional-gids %q: %w", g, err)
		}
		p.User.AdditionalGids = append(p.User.AdditionalGids, gid)
	}
	return p, nil
}

// addCaps adds capabilities. They do not become inheritable, as that would
// give them to every program that some user runs (CVE-2022-29162), and so can
// be ambient only where the configuration has made them inheritable.
func (o *execFlags) addCaps(p *specs.Process) {
	if len(o.caps) == 0 {
		return
	}
	caps := specs.LinuxCapabilities{}
	if p.Capabilities != nil {
		caps = *p.Capabilities
	}
	for _, name := range o.caps {
		caps.Bounding = append(caps.Bounding, name)
		caps.Effective = append(caps.Effective, name)
		caps.Permitted = append(caps.Permitted, name)
		if slices.Contains(caps.Inheritable, name) {
			caps.Ambient = append(caps.Ambient, name)
		}
	}
	p.Capabilities = &caps
}

// setUser reads UID[:GID]. Names have no meaning here, and whatever is not
// wholly a number is an error (CVE-2026-30892).
func setUser(u *specs.User, text string) error {
	uid, gid, hasGroup := strings.Cut(text, ":")
	id, err := parseID(uid)
	if err != nil {
		return fmt.Errorf("--user %q: bad uid: %w", text, err)
	}
	u.UID = id
	if hasGroup {
		if u.GID, err = parseID(gid); err != nil {
			return fmt.Errorf("--user %q: bad gid: %w", text, err)
		}
	}
	return nil
}

// parseID reads a user or group id; the last of them all means none to the kernel.
func parseID(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err == nil && n == math.MaxUint32 {
		err = strconv.ErrRange
	}
	if err != nil {
		return 0, fmt.Errorf("%q is not an id from 0 to %d", text, uint32(math.MaxUint32-1))
	}
	return uint32(n), nil
}

// parseSubCgroups reads what --cgroup was given: one PATH, or for each
// hierarchy of version 1 CONTROLLER[,CONTROLLER…]:PATH.
func parseSubCgroups(args []string) (map[string]string, error) {
	subs := make(map[string]string, len(args))
	for _, arg := range args {
		controllers, path, ok := strings.Cut(arg, ":")
		if !ok {
			if len(args) != 1 {
				return nil, fmt.Errorf("invalid --cgroup argument: %s (missing <controller>: prefix)", arg)
			}
			return map[string]string{"": arg}, nil
		}
		for controller := range strings.SplitSeq(controllers, ",") {
			if controller == "" {
				return nil, fmt.Errorf("invalid --cgroup argument: %s (empty <controller> prefix)", arg)
			}
			if _, twice := subs[controller]; twice {
				return nil, fmt.Errorf("invalid --cgroup argument(s): controller %s specified multiple times", controller)
			}
			subs[controller] = path
		}
	}
	return subs, nil
}
