package plan

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/linux"
)

// withoutProgram compiles a container that has no process: it can be created,
// and start needs what is missing (config.md, "process").
func (c *compiler) withoutProgram() {
	if !c.facts.Wait {
		c.fail("process", "missing")
	}
	s := *c.spec
	s.Process = &specs.Process{Cwd: "/"}
	c.spec, c.idle = &s, true
}

// process sets what the user's program inherits, waits, and runs it.
func (c *compiler) process() {
	p := c.spec.Process
	if c.idle {
		c.step("process.cwd", changeDir{c.cwd})
		c.domains()
		c.step("", ready{c.sync})
		c.step("", waitStart{c.gate})
		c.step("process", end{})
		return
	}
	candidates := c.candidates()
	if len(candidates) == 0 {
		return
	}
	if p.Terminal {
		c.step("process.terminal", useTerminal{c.tty, p.User.UID})
	}
	c.step("process.cwd", changeDir{c.cwd})
	if !c.exec { // which has set them outside
		c.rlimits(false)
	}
	c.scheduling(p)
	c.domains()
	c.step("process.args", findExecutable{p.Args[0], candidates})
	c.step("", ready{c.sync})
	if c.facts.Wait {
		c.step("", waitStart{c.gate})
	}
	c.rlimits(true)
	keep := 3 + c.facts.PreserveFDs
	filter, err := c.filter()
	if err != nil {
		c.errs = append(c.errs, err)
	}
	c.step("process.user.umask", umask{c.mask()})
	c.step("", closeOnExec{keep})
	before := len(c.plan.Steps)
	if p.NoNewPrivileges {
		c.step("process.noNewPrivileges", noNewPrivs{})
	}
	// Without no_new_privs a filter needs CAP_SYS_ADMIN, which the user's
	// program will usually not have.
	if filter != nil && !p.NoNewPrivileges {
		c.step("linux.seccomp", *filter)
	}
	c.credentials()
	if filter != nil && p.NoNewPrivileges {
		c.step("linux.seccomp", *filter)
	}
	c.startHooks(before)
	c.step("process.args", execve{candidates, p.Args, c.env()})
}

func (c *compiler) mask() uint32 {
	if m := c.spec.Process.User.Umask; m != nil {
		return *m
	}
	return 0o022
}

// candidates are the files that args[0] may mean: itself where it has a slash,
// else one for each directory of the container's PATH.
func (c *compiler) candidates() []string {
	p := c.spec.Process
	if len(p.Args) == 0 || p.Args[0] == "" {
		c.fail("process.args", "no command: args must have at least one entry")
		return nil
	}
	name := p.Args[0]
	if strings.Contains(name, "/") {
		return []string{name}
	}
	search := ""
	for _, e := range p.Env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			search = v
		}
	}
	var found []string
	for _, dir := range strings.Split(search, ":") {
		// An empty entry would mean the working directory (exec(3)), which
		// nobody wants of a container; a relative one likewise.
		if strings.HasPrefix(dir, "/") {
			found = append(found, path.Join(dir, name))
		}
	}
	if len(found) == 0 {
		c.fail("process.args", "exec: %q: executable file not found in $PATH", name)
	}
	return found
}

// env is the program's environment. Like runc it has a name once, the last time
// it was there, and always a home directory; an empty one is none.
func (c *compiler) env() []string {
	env := c.spec.Process.Env
	out, seen := make([]string, 0, len(env)+1), make(map[string]bool, len(env)+1)
	home := ""
	for _, e := range slices.Backward(env) {
		name, value, _ := strings.Cut(e, "=")
		if seen[name] {
			continue
		}
		seen[name] = true
		if name == "HOME" {
			home = value
		}
		if e != "HOME=" {
			out = append(out, e)
		}
	}
	slices.Reverse(out)
	if home == "" {
		out = append(out, "HOME="+cmp.Or(c.facts.Home, "/"))
	}
	return out
}

// rlimits sets the limits while the process is root, so that it can raise them,
// and while create still listens. The late ones wait until the process opens
// nothing more.
func (c *compiler) rlimits(late bool) {
	for i, r := range c.spec.Process.Rlimits {
		if (r.Type == "RLIMIT_NOFILE" && r.Soft < fewFiles) == late {
			c.rlimit(i, r)
		}
	}
}

// fewFiles is how many descriptors a limit must allow for the process to get to
// its program. To go below it can always.
const fewFiles = 64

func (c *compiler) rlimit(i int, r specs.POSIXRlimit) {
	field := fmt.Sprintf("process.rlimits[%d]", i)
	n, ok := linux.Rlimit(r.Type)
	if !ok {
		c.fail(field+".type", "unknown resource limit %q", r.Type)
		return
	}
	if c.userNamespace() && !c.exec {
		// The limits of the initial user namespace are the parent's to raise.
		c.plan.Rlimits = append(c.plan.Rlimits, Rlimit{n, r.Hard, field})
	}
	c.step(field, setRlimit{n, r.Soft, r.Hard})
}
