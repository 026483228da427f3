package plan

import (
	"errors"
	"fmt"
	"path"
	"sort"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/linux"
	"github.com/tare-oci/tare/runtime/seccomp"
)

// A FieldError is what is wrong with a field of config.json.
type FieldError struct {
	Field string
	Err   error
}

// Error names the file, the field and the cause.
func (e *FieldError) Error() string { return "config.json: " + e.Field + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *FieldError) Unwrap() error { return e.Err }

func fieldError(field, format string, args ...any) error {
	return &FieldError{field, fmt.Errorf(format, args...)}
}

var errUnsupported = errors.New("not supported by this runtime")

// A compiler builds one plan.
type compiler struct {
	spec   *specs.Spec
	facts  *Facts
	plan   *Plan
	errs   []error
	fresh  uint64            // flags of the namespaces that are new
	joined map[uint64]string // paths of the namespaces that are joined
	root   FD
	sync   FD
	gate   FD
	cons   FD
	groups []FD
	null   FD // the host's /dev/null
	tty    FD
	cwd    FD
	trees  map[string]FD
	late   []Step // read-only marks that wait until everything below is mounted
}

// Compile makes the plan for creating a container. The configuration must be
// valid (package spec). Errors are of type *FieldError.
func Compile(s *specs.Spec, facts *Facts) (*Plan, error) {
	c := &compiler{spec: s, facts: facts, joined: map[uint64]string{},
		plan: &Plan{GOARCH: facts.Host.Arch, Steps: make([]Step, 0, 96)}}
	c.refuse()
	c.namespaces()
	c.files()
	c.begin()
	c.mounts()
	c.devices()
	c.console()
	c.protect()
	c.pivot()
	c.settings()
	c.process()
	if err := errors.Join(c.errs...); err != nil {
		return nil, err
	}
	return c.plan, nil
}

func (c *compiler) fail(field, format string, args ...any) {
	c.errs = append(c.errs, fieldError(field, format, args...))
}

func (c *compiler) warn(field, format string, args ...any) {
	c.plan.Warnings = append(c.plan.Warnings, field+": "+fmt.Sprintf(format, args...))
}

func (c *compiler) step(field string, op Op) {
	c.plan.Steps = append(c.plan.Steps, Step{op, field})
}

// newFD names a descriptor that a step will make.
func (c *compiler) newFD(name string) FD {
	c.plan.slots++
	return FD{name, c.plan.slots - 1, true}
}

// file adds a descriptor the process is started with.
func (c *compiler) file(name string, f File) FD {
	c.plan.Files = append(c.plan.Files, f)
	return FD{name, len(c.plan.Files) - 1, false}
}

func (c *compiler) linux() *specs.Linux {
	if c.spec.Linux == nil {
		return &specs.Linux{}
	}
	return c.spec.Linux
}

// refuse names what the configuration asks for and no step does: ignoring a
// field would be worse.
func (c *compiler) refuse() {
	l, p := c.linux(), c.spec.Process
	if p == nil {
		c.fail("process", "missing")
		c.spec.Process = &specs.Process{}
		p = c.spec.Process
	}
	for _, r := range []struct {
		field string
		set   bool
	}{
		{"process.apparmorProfile", p.ApparmorProfile != ""},
		{"process.selinuxLabel", p.SelinuxLabel != ""},
		{"process.scheduler", p.Scheduler != nil},
		{"process.ioPriority", p.IOPriority != nil},
		{"process.execCPUAffinity", p.ExecCPUAffinity != nil},
		{"linux.mountLabel", l.MountLabel != ""},
		{"linux.intelRdt", l.IntelRdt != nil},
		{"linux.memoryPolicy", l.MemoryPolicy != nil},
		{"linux.personality", l.Personality != nil},
		{"linux.netDevices", len(l.NetDevices) > 0},
		{"linux.timeOffsets", len(l.TimeOffsets) > 0},
		{"hooks", hasHooks(c.spec.Hooks)},
	} {
		if r.set {
			c.errs = append(c.errs, &FieldError{r.field, errUnsupported})
		}
	}
}

func hasHooks(h *specs.Hooks) bool {
	return h != nil && len(h.CreateRuntime)+len(h.CreateContainer)+len(h.StartContainer)+len(h.Poststart)+len(h.Poststop)+
		len(h.Prestart) > 0 //nolint:staticcheck // Prestart is deprecated, not gone
}

func (c *compiler) namespaces() {
	for i, ns := range c.linux().Namespaces {
		field := fmt.Sprintf("linux.namespaces[%d]", i)
		info, ok := linux.Namespace(ns.Type)
		switch {
		case !ok:
			c.fail(field+".type", "unknown namespace %q", ns.Type)
		case ns.Path == "" && ns.Type == specs.TimeNamespace:
			c.errs = append(c.errs, &FieldError{field, errUnsupported})
		case ns.Path == "":
			c.fresh |= info.CloneFlag
		case ns.Type == specs.UserNamespace || ns.Type == specs.PIDNamespace || ns.Type == specs.TimeNamespace || ns.Type == specs.MountNamespace:
			c.fail(field+".path", "joining a %s namespace is %w", ns.Type, errUnsupported)
		default:
			c.joined[info.CloneFlag] = ns.Path
		}
	}
	if c.fresh&linux.CLONE_NEWNS == 0 {
		c.fail("linux.namespaces", "a new mount namespace is needed")
	}
	// The control group namespace's root is the group the process is in when
	// it is made, so the process must have joined its own first.
	c.plan.Namespaces = c.fresh &^ linux.CLONE_NEWCGROUP
	if c.userNamespace() && len(c.linux().UIDMappings) == 0 {
		c.fail("linux.uidMappings", "a new user namespace needs mappings")
	}
}

func (c *compiler) userNamespace() bool { return c.fresh&linux.CLONE_NEWUSER != 0 }

// treesFromParent says that mounts are copied by the parent, because the
// process's own user may not reach them.
func (c *compiler) treesFromParent() bool {
	return c.userNamespace() && c.facts.Host.HasCap(linux.CAP_SYS_ADMIN)
}

// files lists the descriptors every container's process starts with. Those of
// mounts are added where the mounts are compiled.
func (c *compiler) files() {
	for i := range 3 {
		c.file("stdio", File{Kind: Stdio, Index: i})
	}
	for i := range c.facts.PreserveFDs {
		c.file("preserved", File{Kind: Preserved, Index: i})
	}
	c.sync = c.file("parent", File{Kind: SyncPipe})
	if c.facts.Wait {
		c.gate = c.file("start", File{Kind: StartGate})
	}
	if c.spec.Process.Terminal {
		c.cons = c.file("console", File{Kind: Console, Field: "process.terminal"})
	}
	for i := range c.facts.CgroupFiles {
		c.groups = append(c.groups, c.file(fmt.Sprintf("cgroup %d", i), File{Kind: Cgroup, Index: i, Field: "linux.cgroupsPath"}))
	}
}

func (c *compiler) begin() {
	joins := c.joins()
	trees := c.parentTrees()
	c.step("", hold{First: len(c.plan.Files)})
	for _, g := range c.groups {
		c.step("linux.cgroupsPath", joinCgroup{g})
	}
	for _, j := range joins {
		c.step(j.Field, j.Op)
	}
	if c.fresh&linux.CLONE_NEWCGROUP != 0 {
		c.step("linux.namespaces", unshare{linux.CLONE_NEWCGROUP})
	}
	if !c.facts.NoNewKeyring {
		c.step("", sessionKeyring{"_ses." + c.facts.ID})
	}
	c.rootfs(trees)
}

func (c *compiler) joins() []Step {
	var steps []Step
	for i, ns := range c.linux().Namespaces {
		info, ok := linux.Namespace(ns.Type)
		if !ok || c.joined[info.CloneFlag] == "" {
			continue
		}
		field := fmt.Sprintf("linux.namespaces[%d].path", i)
		fd := c.file(info.Proc+" namespace", File{Kind: Namespace, Path: ns.Path, Field: field})
		steps = append(steps, Step{setns{fd, info.CloneFlag}, field})
	}
	return steps
}

// pivot makes the container's root the process's root.
func (c *compiler) pivot() {
	// The working directory may have to be made, while the root can be written.
	c.cwd = c.newFD("cwd")
	c.step("process.cwd", openTarget{Root: c.root, Path: path.Clean("/" + c.spec.Process.Cwd), Dir: true, Out: c.cwd})
	c.plan.Steps = append(c.plan.Steps, c.late...)
	if c.spec.Root.Readonly {
		c.step("root.readonly", mountSetattr{Mount: c.root, Set: linux.MOUNT_ATTR_RDONLY})
	}
	c.step("root", pivotRoot{c.root})
	if p := c.linux().RootfsPropagation; p != "" {
		if m := linux.ParseMountOptions([]string{p}); len(m.Propagation) == 1 {
			c.step("linux.rootfsPropagation", mountSetattr{Path: "/", Recursive: m.Propagation[0]&linux.MS_REC != 0,
				Propagation: m.Propagation[0] &^ linux.MS_REC})
		} else {
			c.fail("linux.rootfsPropagation", "unknown propagation %q", p)
		}
	}
}

// settings are those of the new namespaces.
func (c *compiler) settings() {
	if c.fresh&linux.CLONE_NEWNET != 0 {
		c.step("linux.namespaces", loopbackUp{})
	}
	if c.spec.Hostname != "" {
		c.step("hostname", setName{"sethostname", c.spec.Hostname})
	}
	if c.spec.Domainname != "" {
		c.step("domainname", setName{"setdomainname", c.spec.Domainname})
	}
	sysctl := c.linux().Sysctl
	if len(sysctl) == 0 {
		return
	}
	proc := c.newFD("proc")
	c.step("linux.sysctl", mountFS{Type: "proc", Source: "proc", Out: proc})
	keys := make([]string, 0, len(sysctl))
	for k := range sysctl {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		if strings.Contains("/"+sysctlPath(k)+"/", "/../") {
			c.fail("linux.sysctl."+k, "not the name of a kernel parameter")
		}
		c.step("linux.sysctl."+k, writeSysctl{proc, k, sysctl[k]})
	}
	c.step("linux.sysctl", closeFD{proc})
}

// process sets what the user's program inherits, waits, and runs it.
func (c *compiler) process() {
	p := c.spec.Process
	candidates := c.candidates()
	if len(candidates) == 0 {
		return
	}
	if p.Terminal {
		c.step("process.terminal", useTerminal{c.tty, p.User.UID})
	}
	c.step("process.cwd", changeDir{c.cwd})
	for i, r := range p.Rlimits {
		c.rlimit(i, r)
	}
	c.step("process.args", findExecutable{p.Args[0], candidates})
	c.step("", ready{c.sync})
	if c.facts.Wait {
		c.step("", waitStart{c.gate})
	}
	keep := 3 + c.facts.PreserveFDs
	filter, err := c.filter()
	if err != nil {
		c.fail("linux.seccomp", "%w", err)
	}
	c.step("process.user.umask", umask{c.mask()})
	c.step("", closeOnExec{keep})
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

func (c *compiler) env() []string {
	env := c.spec.Process.Env
	for _, e := range env {
		if strings.HasPrefix(e, "HOME=") {
			return env
		}
	}
	home := c.facts.Home
	if home == "" {
		home = "/"
	}
	return append(env[:len(env):len(env)], "HOME="+home)
}

func (c *compiler) rlimit(i int, r specs.POSIXRlimit) {
	field := fmt.Sprintf("process.rlimits[%d]", i)
	n, ok := linux.Rlimit(r.Type)
	if !ok {
		c.fail(field+".type", "unknown resource limit %q", r.Type)
		return
	}
	if c.userNamespace() {
		// The limits of the initial user namespace are the parent's to raise.
		c.plan.Rlimits = append(c.plan.Rlimits, Rlimit{n, r.Soft, r.Hard, field})
		return
	}
	c.step(field, setRlimit{n, r.Soft, r.Hard})
}

func (c *compiler) filter() (*loadSeccomp, error) {
	profile := c.linux().Seccomp
	if profile == nil {
		return nil, nil
	}
	native, ok := linux.NativeArch(c.facts.Host.Arch)
	if !ok {
		return nil, fmt.Errorf("unknown architecture %s", c.facts.Host.Arch)
	}
	compiled, err := seccomp.Compile(profile, native)
	if err != nil {
		return nil, err
	}
	if compiled.Notifies() {
		return nil, fmt.Errorf("%s is %w", specs.ActNotify, errUnsupported)
	}
	return &loadSeccomp{compiled.AppendBinary(nil), compiled.Flags}, nil
}
