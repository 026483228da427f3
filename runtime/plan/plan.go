package plan

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/linux"
	"github.com/tare-oci/tare/runtime/program"
)

// A Plan is everything the container's first process does until it executes
// the user's program, and what it has to be started with.
type Plan struct {
	// GOARCH is the architecture it is for.
	GOARCH string
	// Namespaces are the CLONE_NEW* flags the process is cloned with.
	Namespaces uint64
	// OnHost says that the container is in the host's mount namespace: its root
	// file system is mounted over itself there, and somebody has to take that away.
	OnHost bool
	// Maps are what the parent writes when the process says SaysMaps; nil for
	// a process that does not.
	Maps *UserMaps
	// Files are the descriptors 0, 1, 2… the process is started with.
	Files []File
	// Steps run in order.
	Steps []Step
	// Rlimits are those that the parent raises, where they are lower, so that the
	// process can set its own.
	Rlimits []Rlimit
	// Listener, where not nil, is where the filter's listener has to go.
	Listener *Listener
	// Warnings are what the configuration asks for and cannot be granted,
	// where the specification wants a warning instead of an error.
	Warnings []string

	slots  int
	awaits bool
}

// A Step is one operation and where it comes from.
type Step struct {
	Op Op
	// Field is the path in config.json, such as "mounts[2].options", or empty
	// for what every container needs.
	Field string
}

// UserMaps are the id maps of a new user namespace and how they get there.
type UserMaps struct {
	UID, GID []specs.LinuxIDMapping
	// UIDTool and GIDTool have newuidmap and newgidmap write them, which may
	// map what /etc/subuid and /etc/subgid give the user.
	UIDTool, GIDTool bool
	// DenySetgroups forbids setgroups(2) in the namespace, which the kernel
	// wants of an unprivileged process that writes a gid map.
	DenySetgroups bool
}

// String describes the maps and who writes them.
func (m *UserMaps) String() string {
	text := func(maps []specs.LinuxIDMapping, tool bool, name string) string {
		var s strings.Builder
		s.WriteString(name)
		if tool {
			s.WriteString(" by new" + name + "map")
		}
		for _, x := range maps {
			fmt.Fprintf(&s, " %d:%d:%d", x.ContainerID, x.HostID, x.Size)
		}
		return s.String()
	}
	return text(m.UID, m.UIDTool, "uid") + ", " + text(m.GID, m.GIDTool, "gid") + flag(m.DenySetgroups, ", setgroups denied")
}

// A Rlimit is what a hard limit of the process must not be below.
type Rlimit struct {
	Resource int
	Hard     uint64
	// Field is where in config.json it comes from.
	Field string
}

// An Op is one operation of a plan. String begins with the operation's name.
type Op interface {
	fmt.Stringer
	lower(*lowering)
}

// An FD is a file descriptor of the process: one it is started with, or the
// result of an earlier step.
type FD struct {
	name     string
	number   int  // of the descriptor, or of the variable that takes it
	variable bool // whether it is the result of a step
}

// String is the descriptor's name in the plan.
func (f FD) String() string { return "<" + f.name + ">" }

// FileKind says what a descriptor that the process starts with is.
type FileKind string

// The kinds of File.
const (
	Stdio      FileKind = "stdio"       // Index 0, 1 or 2 of the caller
	Preserved  FileKind = "preserved"   // Index-th of --preserve-fds
	SyncPipe   FileKind = "sync"        // socket to the parent: reports, and its answers
	StartGate  FileKind = "start"       // listening socket that start connects to
	Console    FileKind = "console"     // socket that takes the terminal's master
	Cgroup     FileKind = "cgroup"      // Index-th file of cgroup membership
	Namespace  FileKind = "namespace"   // Path of a namespace to join
	Init       FileKind = "init"        // pidfd of the running container's first process
	Root       FileKind = "root"        // root directory of that process
	HookState  FileKind = "hook state"  // Index 0: the state of a container that is being created, 1: that is created
	HookOutput FileKind = "hook output" // Index 1 and 2: pipes to the parent, 0: nowhere
	Tree       FileKind = "tree"        // detached copy of the mounts at Path, made by the parent
	Copied     FileKind = "copy"        // detached tmpfs with a copy of Copy.Source, made by the parent
	Program    FileKind = "program"     // takes the program of the whole plan: Opening
)

// A File is one descriptor that the process is started with.
type File struct {
	Kind FileKind
	// Index distinguishes files of one kind.
	Index int
	// Path is what the parent opens: kinds Namespace and Tree.
	Path string
	// Recursive takes all mounts below Path: kind Tree.
	Recursive bool
	// IDMap maps the ids of the mounts' files: kind Tree, nil for none.
	IDMap *IDMap
	// Copy is the file system to make and what to fill it with: kind Copied.
	Copy *CopyUp
	// Field is where in config.json it comes from.
	Field string
}

// String describes the file.
func (f File) String() string {
	switch f.Kind {
	case Stdio, Preserved, Cgroup, HookState, HookOutput:
		return fmt.Sprintf("%s %d", f.Kind, f.Index)
	case Namespace:
		return fmt.Sprintf("%s %q", f.Kind, f.Path)
	case Tree:
		return fmt.Sprintf("%s %q%v", f.Kind, f.Path, f.IDMap)
	case Copied:
		return fmt.Sprintf("%s of %q in a tmpfs [%s] %s%v", f.Kind, "/"+f.Copy.Source.Name,
			strings.Join(append(f.Copy.Flags[:len(f.Copy.Flags):len(f.Copy.Flags)], f.Copy.Data...), " "), attrNames(f.Copy.Attr), f.Copy.IDs)
	}
	return string(f.Kind)
}

// name is what the steps call the descriptor of a mount.
func (f File) name() string { return string(f.Kind) + " " + f.Path }

// Program lowers the plan to a program image.
func (p *Plan) Program() (*program.Image, error) {
	l := newLowering(p)
	for i, s := range p.Steps {
		l.begin(i)
		s.Op.lower(l)
	}
	l.finish()
	return l.b.Image()
}

// Print writes the plan for people: a line for a step, with the field of
// config.json behind it. With calls, the system calls of each step follow it.
func (p *Plan) Print(w io.Writer, calls bool) error {
	var out strings.Builder
	fmt.Fprintln(&out, strings.Join(append([]string{"clone"}, namespaceNames(p.Namespaces)...), " "))
	for i, f := range p.Files {
		fmt.Fprintf(&out, "  fd %d: %s\n", i, withField(f.String(), f.Field))
	}
	if p.Maps != nil {
		fmt.Fprintf(&out, "  %s\n", withField("maps: "+p.Maps.String(), "linux.uidMappings"))
	}
	byStep, err := p.callsByStep(calls)
	if err != nil {
		return err
	}
	for i, s := range p.Steps {
		fmt.Fprintf(&out, "%s\n", withField(s.Op.String(), s.Field))
		for _, c := range byStep[i] {
			fmt.Fprintf(&out, "      %s\n", c)
		}
	}
	for _, warning := range p.Warnings {
		fmt.Fprintf(&out, "warning: %s\n", warning)
	}
	_, err = io.WriteString(w, out.String())
	return err
}

func (p *Plan) callsByStep(wanted bool) (map[int][]string, error) {
	if !wanted {
		return nil, nil
	}
	im, err := p.Program()
	if err != nil {
		return nil, err
	}
	byStep := map[int][]string{}
	for step, text := range im.Calls {
		byStep[step] = append(byStep[step], text)
	}
	return byStep, nil
}

func withField(text, field string) string {
	if field == "" {
		return text
	}
	return fmt.Sprintf("%-72s # %s", text, field)
}

func namespaceNames(flags uint64) []string {
	var names []string
	for _, n := range linux.Namespaces() {
		if flags&n.CloneFlag != 0 {
			names = append(names, string(n.Type))
		}
	}
	return names
}

// MarshalJSON prints the plan for machines: namespaces, files and steps, each
// step with its operation, text, field and system calls.
func (p *Plan) MarshalJSON() ([]byte, error) {
	type step struct {
		Op    string   `json:"op"`
		Text  string   `json:"text"`
		Field string   `json:"field,omitempty"`
		Calls []string `json:"calls"`
	}
	type file struct {
		FD    int      `json:"fd"`
		Kind  FileKind `json:"kind"`
		Path  string   `json:"path,omitempty"`
		Field string   `json:"field,omitempty"`
	}
	byStep, err := p.callsByStep(true)
	if err != nil {
		return nil, err
	}
	files := make([]file, len(p.Files))
	for i, f := range p.Files {
		files[i] = file{i, f.Kind, f.Path, f.Field}
	}
	steps := make([]step, len(p.Steps))
	for i, s := range p.Steps {
		text := s.Op.String()
		name, _, _ := strings.Cut(text, " ")
		steps[i] = step{name, text, s.Field, byStep[i]}
	}
	return json.Marshal(struct {
		Arch       string   `json:"arch"`
		Namespaces []string `json:"namespaces"`
		Files      []file   `json:"files"`
		Steps      []step   `json:"steps"`
		Warnings   []string `json:"warnings,omitempty"`
	}{p.GOARCH, namespaceNames(p.Namespaces), files, steps, p.Warnings})
}
