package spec

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/linux"
)

// maxProblems bounds how many errors Validate collects.
const maxProblems = 20

// Validate checks a config.json against what config.md and config-linux.md say it MUST be, as far as the document alone tells. Its error
// joins one *Error per problem. process may be absent: only start needs it.
func Validate(s *specs.Spec) error {
	var c checker
	c.version(s.Version)
	if s.Root == nil {
		c.fail(in("root"), "missing")
	} else {
		c.text(in("root.path"), s.Root.Path)
		if s.Root.Path == "" {
			c.fail(in("root.path"), "empty")
		}
	}
	if s.Process != nil {
		c.process("process.", s.Process)
	}
	c.mounts(s.Mounts)
	c.hooks(s.Hooks)
	if _, ok := s.Annotations[""]; ok {
		c.fail(in("annotations"), "a key is empty")
	}
	c.hostname("hostname", s.Hostname, s.Linux)
	c.hostname("domainname", s.Domainname, s.Linux)
	if s.Linux != nil {
		c.linux(s.Linux)
	}
	c.otherPlatforms(s)
	return c.err("config.json")
}

// otherPlatforms refuses what a Linux container has no use for. config.md lets these sections be there only for their platform, and says
// of vm that it asks for hardware virtualization: to run such a container without it would give less isolation than was asked for.
func (c *checker) otherPlatforms(s *specs.Spec) {
	for _, p := range []struct {
		section, target string
		set             bool
	}{
		{"freebsd", "FreeBSD", s.FreeBSD != nil}, {"solaris", "Solaris", s.Solaris != nil}, {"windows", "Windows", s.Windows != nil},
		{"zos", "z/OS", s.ZOS != nil}, {"vm", "virtual machines", s.VM != nil},
	} {
		if p.set {
			c.fail(in(p.section), "is for %s, and this runtime makes Linux containers", p.target)
		}
	}
}

// ValidateProcess checks a process.json.
func ValidateProcess(p *specs.Process) error {
	var c checker
	c.process("", p)
	return c.err("process.json")
}

// checker collects problems.
type checker struct{ problems []*Error }

func (c *checker) fail(where loc, format string, args ...any) {
	if len(c.problems) < maxProblems {
		c.problems = append(c.problems, &Error{Path: where.String(), Offset: -1, Msg: fmt.Sprintf(format, args...)})
	}
}

func (c *checker) err(file string) error {
	errs := make([]error, len(c.problems))
	for i, e := range c.problems {
		e.File = file
		errs[i] = e
	}
	return errors.Join(errs...)
}

// loc is a JSON path that costs nothing until it is printed.
type loc struct {
	list  string
	index int // -1: no list
	rest  string
}

func in(path string) loc { return loc{list: path, index: -1} }

func at(list string, index int, rest string) loc { return loc{list, index, rest} }

// key is the path of a map's entry.
func key(object, k string) loc { return in(object + "[" + strconv.Quote(k) + "]") }

// sub is the path of a field in l.
func (l loc) sub(field string) loc {
	if l.index < 0 {
		l.list += field
	} else {
		l.rest += field
	}
	return l
}

func (l loc) String() string {
	if l.index < 0 {
		return l.list
	}
	return l.list + "[" + strconv.Itoa(l.index) + "]" + l.rest
}

// text refuses what cannot be handed to the kernel as a string.
func (c *checker) text(where loc, s string) {
	if strings.IndexByte(s, 0) >= 0 {
		c.fail(where, "has a NUL character")
	}
}

// absolute asks for an absolute path.
func (c *checker) absolute(where loc, s string) {
	c.text(where, s)
	if !strings.HasPrefix(s, "/") {
		c.fail(where, "%q is not an absolute path", s)
	}
}

// oneOf asks for one of some names.
func oneOf[T ~string](c *checker, where loc, s T, names ...T) {
	for _, n := range names {
		if s == n {
			return
		}
	}
	c.fail(where, "unknown value %q", s)
}

// known asks for a name that one of package linux's tables has.
func known[N any](c *checker, where loc, name string, table func(string) (N, bool)) {
	if _, ok := table(name); !ok {
		c.fail(where, "unknown value %q", name)
	}
}

// version asks for SemVer 2.0.0. Every 1.x is compatible: an older config uses nothing that is gone, a newer one's new properties are
// unknown and so ignored.
func (c *checker) version(v string) {
	if v == "" {
		c.fail(in("ociVersion"), "missing")
		return
	}
	core, _, _ := strings.Cut(v, "+")
	core, pre, hasPre := strings.Cut(core, "-")
	parts := strings.Split(core, ".")
	ok := len(parts) == 3 && !(hasPre && pre == "") && !strings.HasSuffix(v, "+")
	for _, p := range parts {
		ok = ok && p != "" && strings.Trim(p, "0123456789") == "" && (p == "0" || p[0] != '0')
	}
	switch {
	case !ok:
		c.fail(in("ociVersion"), "%q is not a semantic version", v)
	case parts[0] != "1":
		c.fail(in("ociVersion"), "version %s is not supported: want 1.x", v)
	}
}

func (c *checker) process(prefix string, p *specs.Process) {
	c.absolute(in(prefix+"cwd"), p.Cwd)
	if p.CommandLine != "" {
		c.fail(in(prefix+"commandLine"), "is for Windows, and this runtime makes Linux containers")
	}
	if len(p.Args) == 0 {
		c.fail(in(prefix+"args"), "empty")
	}
	for i, a := range p.Args {
		if strings.IndexByte(a, 0) >= 0 {
			c.fail(at(prefix+"args", i, ""), "has a NUL character")
		}
	}
	for i, e := range p.Env {
		if strings.IndexByte(e, 0) >= 0 {
			c.fail(at(prefix+"env", i, ""), "has a NUL character")
		}
		if strings.IndexByte(e, '=') < 1 {
			c.fail(at(prefix+"env", i, ""), "%q is not of the form NAME=value", e)
		}
	}
	if p.Terminal && p.ConsoleSize != nil && (p.ConsoleSize.Width > 0xffff || p.ConsoleSize.Height > 0xffff) {
		c.fail(in(prefix+"consoleSize"), "larger than 65535")
	}
	c.user(prefix+"user.", &p.User)
	if p.User.Umask != nil && *p.User.Umask > 0o777 {
		c.fail(in(prefix+"user.umask"), "%d (%#o) is more than 511 (0777)", *p.User.Umask, *p.User.Umask)
	}
	if p.OOMScoreAdj != nil && (*p.OOMScoreAdj < -1000 || *p.OOMScoreAdj > 1000) {
		c.fail(in(prefix+"oomScoreAdj"), "%d is not between -1000 and 1000", *p.OOMScoreAdj)
	}
	c.rlimits(prefix, p.Rlimits)
	c.scheduler(prefix+"scheduler", p.Scheduler)
	if io := p.IOPriority; io != nil {
		known(c, in(prefix+"ioPriority.class"), string(io.Class), linux.IOPriorityClass)
		if io.Priority < 0 || io.Priority > 7 {
			c.fail(in(prefix+"ioPriority.priority"), "%d is not between 0 and 7", io.Priority)
		}
	}
	c.text(in(prefix+"apparmorProfile"), p.ApparmorProfile)
	c.text(in(prefix+"selinuxLabel"), p.SelinuxLabel)
	if a := p.ExecCPUAffinity; a != nil {
		c.numberList(in(prefix+"execCPUAffinity.initial"), a.Initial, linux.MaxCPUs)
		c.numberList(in(prefix+"execCPUAffinity.final"), a.Final, linux.MaxCPUs)
	}
}

// noID is what setresuid(2) and chown(2) take for "as it is", which here is root's.
const noID = math.MaxUint32

// user refuses an id that is none, and more groups than NGROUPS_MAX.
func (c *checker) user(prefix string, u *specs.User) {
	const maxGroups = 65536
	if u.UID == noID {
		c.fail(in(prefix+"uid"), "%d is no id", u.UID)
	}
	if u.GID == noID {
		c.fail(in(prefix+"gid"), "%d is no id", u.GID)
	}
	if len(u.AdditionalGids) > maxGroups {
		c.fail(in(prefix+"additionalGids"), "more than %d", maxGroups)
	}
	for i, gid := range u.AdditionalGids {
		if gid == noID {
			c.fail(at(prefix+"additionalGids", i, ""), "%d is no id", gid)
		}
	}
}

// rlimits asks for names that getrlimit(2) knows, each once. A soft limit above the hard one is what setrlimit(2) refuses.
func (c *checker) rlimits(prefix string, list []specs.POSIXRlimit) {
	seen := map[string]bool{}
	for i, l := range list {
		known(c, at(prefix+"rlimits", i, ".type"), l.Type, linux.Rlimit)
		if seen[l.Type] {
			c.fail(at(prefix+"rlimits", i, ".type"), "%s is there twice", l.Type)
		}
		seen[l.Type] = true
		if l.Soft > l.Hard {
			c.fail(at(prefix+"rlimits", i, ".soft"), "%d is above the hard limit %d", l.Soft, l.Hard)
		}
	}
}

func (c *checker) scheduler(path string, s *specs.Scheduler) {
	if s == nil {
		return
	}
	known(c, in(path+".policy"), string(s.Policy), linux.SchedPolicy)
	for i, f := range s.Flags {
		known(c, at(path+".flags", i, ""), string(f), linux.SchedFlag)
	}
	if s.Nice < -20 || s.Nice > 19 {
		c.fail(in(path+".nice"), "%d is not between -20 and 19", s.Nice)
	}
	realtime := s.Policy == specs.SchedFIFO || s.Policy == specs.SchedRR
	if s.Priority != 0 && !realtime {
		c.fail(in(path+".priority"), "only SCHED_FIFO and SCHED_RR have one")
	} else if s.Priority < 0 || s.Priority > 99 {
		c.fail(in(path+".priority"), "%d is not between 0 and 99", s.Priority)
	}
	if s.Policy != specs.SchedDeadline && (s.Runtime != 0 || s.Deadline != 0 || s.Period != 0) {
		c.fail(in(path), "only SCHED_DEADLINE has a runtime, deadline or period")
	}
}

func (c *checker) mounts(list []specs.Mount) {
	for i, m := range list {
		// A relative destination is relative to "/" (config.md: for compatibility with old configurations).
		if m.Destination == "" {
			c.fail(at("mounts", i, ".destination"), "missing")
		}
		c.text(at("mounts", i, ".destination"), m.Destination)
		c.text(at("mounts", i, ".source"), m.Source)
		c.text(at("mounts", i, ".type"), m.Type)
		for j, o := range m.Options {
			if strings.IndexByte(o, 0) >= 0 {
				c.fail(at(at("mounts", i, ".options").String(), j, ""), "has a NUL character")
			}
		}
		if (len(m.UIDMappings) > 0) != (len(m.GIDMappings) > 0) {
			c.fail(at("mounts", i, ""), "uidMappings and gidMappings go together")
		}
		c.mappings(at("mounts", i, ".uidMappings"), m.UIDMappings)
		c.mappings(at("mounts", i, ".gidMappings"), m.GIDMappings)
	}
}

func (c *checker) hooks(h *specs.Hooks) {
	if h == nil {
		return
	}
	//lint:ignore SA1019 prestart is deprecated, and every container of Docker's has one
	prestart := h.Prestart
	for _, kind := range []struct {
		name string
		list []specs.Hook
	}{
		{"prestart", prestart}, {"createRuntime", h.CreateRuntime}, {"createContainer", h.CreateContainer},
		{"startContainer", h.StartContainer}, {"poststart", h.Poststart}, {"poststop", h.Poststop},
	} {
		for i, hook := range kind.list {
			where := at("hooks."+kind.name, i, "")
			c.absolute(where.sub(".path"), hook.Path)
			if hook.Timeout != nil && *hook.Timeout <= 0 {
				c.fail(where.sub(".timeout"), "%d is not greater than zero", *hook.Timeout)
			}
			for _, s := range append(append([]string(nil), hook.Args...), hook.Env...) {
				c.text(where, s)
			}
		}
	}
}

// hostname asks for a UTS namespace, so that the host keeps its own name, and for a name that fits.
func (c *checker) hostname(path, name string, l *specs.Linux) {
	if name == "" {
		return
	}
	c.text(in(path), name)
	if len(name) > 64 {
		c.fail(in(path), "longer than 64 characters")
	}
	if l == nil || !hasNamespace(l, specs.UTSNamespace) {
		c.fail(in(path), "needs a uts namespace in linux.namespaces")
	}
}
