package runtimecli_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/host"
	"github.com/tare-oci/tare/runtime/lifecycle"
	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/program"
)

// What a container's first process does under strace is what explain says of
// its configuration, call by call: the same names, the same arguments, the same
// strings, and after each result the next call that the program foresees for it.
func TestStraceAgreesWithExplain(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	strace := testenv.Tool(t, "strace")
	for _, c := range []struct {
		name   string
		create bool // create and start, else run
		change func(*bundle)
	}{
		{"example", false, func(*bundle) {}},
		{"example, created", true, func(*bundle) {}},
		{"everything", false, everything},
		{"everything, created", true, everything},
		{"user namespace", false, func(b *bundle) {
			everything(b)
			b.Linux.Devices = nil
			testenv.Run(t, "chown", "-R", "100000:100000", b.dir+"/rootfs")
			b.Linux.Namespaces = append(b.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			b.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 2000}}
			b.Linux.GIDMappings = b.Linux.UIDMappings
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBundle(t, "true")
			c.change(b)
			p := b.explain(c.create)
			image, err := p.Program()
			if err != nil {
				t.Fatal(err)
			}
			args := []string{"run", "ID"}
			if c.create {
				args[0] = "create"
			}
			trace := filepath.Join(b.dir, "trace")
			cmd := b.command(args...)
			cmd.Args = slices.Concat([]string{strace, "-f", "-ff", "-e", "raw=all", "-o", trace}, cmd.Args)
			cmd.Path = strace
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if c.create {
				b.awaitCreated()
				b.do("start", "ID")
			}
			if err := cmd.Wait(); err != nil { // strace ends with the last process
				t.Fatal(err)
			}
			if c.create {
				b.do("delete", "ID")
			}
			follow(t, p, b.opening(c.create), image, initTrace(t, trace))
		})
	}
}

// everything has a step of nearly every kind.
func everything(b *bundle) {
	mkdir := func(name string) {
		if err := os.MkdirAll(filepath.Join(b.dir, name), 0o755); err != nil {
			b.t.Fatal(err)
		}
	}
	mkdir("src")
	mkdir("rootfs/hidden")
	mount := func(typ, source, destination string, options ...string) {
		b.Mounts = append(b.Mounts, specs.Mount{Type: typ, Source: source, Destination: destination, Options: options})
	}
	mount("bind", "src", "/new/place/for/it", "rbind", "rro", "rprivate")
	if err := os.WriteFile(filepath.Join(b.dir, "file"), nil, 0o644); err != nil {
		b.t.Fatal(err)
	}
	mount("bind", "file", "/etc/new/config", "bind", "ro")
	mount("tmpfs", "tmpfs", "/t", "ro", "size=1m")
	mount("tmpfs", "tmpfs", "/t/below", "noexec")
	b.Hostname, b.Domainname = "a-name", "a-domain"
	b.Process.Cwd = "/srv/here"
	b.Process.Env = []string{"PATH=/missing:/etc:/bin"}
	b.Process.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{5}}
	b.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
	b.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/deep/fuse", Type: "c", Major: 10, Minor: 229, UID: new(uint32)}}
	b.Linux.MaskedPaths = append(b.Linux.MaskedPaths, "/hidden", "/etc/new/config", "/missing")
	b.Linux.RootfsPropagation = "rslave"
	b.Linux.Namespaces = append(b.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	b.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow,
		Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActErrno}}}
	b.Root.Readonly = true
}

// opening is what the process begins with while the plan is made, nil where it does not.
func (b *bundle) opening(wait bool) *program.Image {
	b.t.Helper()
	opening := plan.Opening(b.Spec, b.facts(wait))
	if opening == nil {
		return nil
	}
	image, err := opening.Program()
	if err != nil {
		b.t.Fatal(err)
	}
	return image
}

// explain compiles the plan, as explain does.
func (b *bundle) explain(wait bool) *plan.Plan {
	b.t.Helper()
	p, err := plan.Compile(b.Spec, b.facts(wait))
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

func (b *bundle) facts(wait bool) *plan.Facts {
	b.t.Helper()
	machine, err := host.Probe()
	if err != nil {
		b.t.Fatal(err)
	}
	f, err := lifecycle.Facts(b.Spec, machine, b.dir, b.id)
	if err != nil {
		b.t.Fatal(err)
	}
	m, err := cgroup.New(machine, cgroup.Options{Path: b.Linux.CgroupsPath, ID: b.id})
	if err != nil {
		b.t.Fatal(err)
	}
	lifecycle.CgroupFacts(f, m.Paths())
	f.Wait = wait
	return f
}

// awaitCreated waits for a create that is traced, so that its end does not tell.
func (b *bundle) awaitCreated() {
	b.t.Helper()
	store := lifecycle.Store{Root: b.root}
	for {
		c, err := store.Load(b.id)
		if err == nil && c.Status() == specs.StateCreated {
			return
		}
		if b.t.Context().Err() != nil {
			b.t.Fatal("not created")
		}
	}
}

// A traced is one line of strace's raw output.
type traced struct {
	line   string
	name   string
	args   []uint64
	result uint64
	errno  unix.Errno
}

// initTrace reads what the container's first process did, from its first
// program on: of all traced processes, the one that runs a program from a
// descriptor.
func initTrace(t *testing.T, prefix string) []traced {
	t.Helper()
	paths, err := filepath.Glob(prefix + ".*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		// The program's first call closes all that is not its.
		execs := regexp.MustCompile(`(?m)^execve\(.*= 0$`).FindAllIndex(data, -1)
		for _, at := range execs {
			if rest := data[at[1]+1:]; bytes.HasPrefix(rest, []byte("close_range(")) {
				return withChild(t, prefix, parseTrace(t, string(rest)))
			}
		}
	}
	t.Fatalf("no init process in %v", paths)
	return nil
}

// withChild goes on with what the child did where the process has made one that
// takes its place: for the child, clone returns 0.
func withChild(t *testing.T, prefix string, calls []traced) []traced {
	t.Helper()
	at := slices.IndexFunc(calls, func(c traced) bool { return c.name == "clone" })
	if at < 0 {
		return calls
	}
	data, err := os.ReadFile(fmt.Sprintf("%s.%d", prefix, calls[at].result))
	if err != nil {
		t.Fatal(err)
	}
	calls[at].result = 0
	return append(calls[:at+1], parseTrace(t, string(data))...)
}

func parseTrace(t *testing.T, text string) (calls []traced) {
	t.Helper()
	format := regexp.MustCompile(`^(\w+)\((.*)\)\s+= (\S+)(?: (E\w+))?`)
	for line := range strings.Lines(text) {
		m := format.FindStringSubmatch(line)
		if m == nil {
			continue // a signal, the end of the process
		}
		if strings.HasPrefix(m[4], "ERESTART") {
			continue // the kernel repeats it, unseen by the process
		}
		c := traced{line: strings.TrimSpace(line), name: m[1]}
		for arg := range strings.SplitSeq(m[2], ", ") {
			if n, err := strconv.ParseUint(arg, 0, 64); err == nil {
				c.args = append(c.args, n)
			}
		}
		c.result, _ = strconv.ParseUint(m[3], 0, 64) // "?" where there is none, "-1" with an error
		if m[4] != "" {
			for e := unix.Errno(1); e < 200 && c.errno == 0; e++ {
				if unix.ErrnoName(e) == m[4] {
					c.errno = e
				}
			}
		}
		calls = append(calls, c)
	}
	return calls
}

// memory is the program's data segment, as it changes while the program runs.
type memory struct {
	data []byte
	base uint64
}

func (m memory) u32(at uint64) uint32 { return binary.LittleEndian.Uint32(m.data[at-m.base:]) }
func (m memory) u64(at uint64) uint64 { return binary.LittleEndian.Uint64(m.data[at-m.base:]) }

func (m memory) set(at, v uint64) { binary.LittleEndian.PutUint64(m.data[at-m.base:], v) }

func (m memory) text(at uint64) string {
	if at < m.base || at >= m.base+uint64(len(m.data)) {
		return ""
	}
	s, _, _ := strings.Cut(string(m.data[at-m.base:]), "\x00")
	return s
}

func load(t *testing.T, image *program.Image) memory {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(image.ELF))
	if err != nil {
		t.Fatal(err)
	}
	for _, segment := range f.Progs {
		if segment.Type == elf.PT_LOAD && segment.Flags&elf.PF_W != 0 {
			data, err := io.ReadAll(segment.Open())
			if err != nil {
				t.Fatal(err)
			}
			return memory{data, segment.Vaddr}
		}
	}
	t.Fatal("no data segment")
	return memory{}
}

// follow interprets the program with the results that the kernel gave, and
// compares each of its calls with what was done and with what explain prints. The
// process begins in the memory of the opening, if there is one, until it reads the
// program over it.
func follow(t *testing.T, p *plan.Plan, opening, image *program.Image, done []traced) {
	t.Helper()
	const callSize, argsAt, callsAt = 72, 24, 32
	var texts []string
	var steps []int
	for step, text := range image.Calls {
		texts, steps = append(texts, text), append(steps, step)
	}
	names, m := image.Names(), load(t, image)
	whole := m
	if opening != nil {
		m = load(t, opening)
	}
	reached := map[int]bool{}
	first := m.base + callsAt
	at := first
	for n, c := range done {
		i := (at - first) / callSize
		if i >= uint64(len(names)) {
			t.Fatalf("call %d, %s: the program has no instruction at %#x", n, c.line, at)
		}
		what := fmt.Sprintf("call %d, instruction %d %s", n, i, texts[i])
		if c.name != names[i] {
			t.Fatalf("%s: the process called\n%s", what, c.line)
		}
		for j, got := range c.args {
			if want := m.u64(at + argsAt + uint64(j)*8); got != want && uint32(got) != uint32(want) {
				t.Errorf("%s: argument %d is %#x: %s", what, j, want, c.line)
			}
		}
		checkText(t, what, texts[i], m, at+argsAt)
		reached[steps[i]] = true
		if c.name == "pread64" {
			m = whole
		}
		mask, bit := uint64(m.u32(at+8)), uint64(c.errno)
		switch {
		case c.errno == unix.EINTR || c.errno == unix.EAGAIN:
		case c.errno != 0 && m.u32(mask+bit/32*4)&(1<<(bit%32)) == 0:
			t.Fatalf("%s fails and is not tolerated: %s", what, c.line)
		case c.errno != 0:
			at = uint64(m.u32(at + 12))
		case c.name == "execve":
			if n := len(p.Steps); len(reached) != n || steps[i] != n-1 {
				t.Errorf("the user's program begins in step %d after %d steps, want %d", steps[i], len(reached), n)
			}
			return
		default:
			for list := uint64(m.u32(at + 4)); m.u32(list) != 0; list += 4 {
				m.set(uint64(m.u32(list)), c.result)
			}
			if zero := m.u32(at + 16); c.result == 0 && zero != 0 {
				at = uint64(zero)
			} else {
				at += callSize
			}
		}
	}
	t.Errorf("the trace ends before the user's program begins")
}

// checkText compares the arguments as explain prints them with those in memory.
func checkText(t *testing.T, what, text string, m memory, args uint64) {
	t.Helper()
	_, rest, _ := strings.Cut(text, "(")
	for j := uint64(0); rest != "" && rest[0] != ')'; j++ {
		value := m.u64(args + j*8)
		if quoted, err := strconv.QuotedPrefix(rest); err == nil {
			if want, _ := strconv.Unquote(quoted); m.text(value) != want {
				t.Errorf("%s: argument %d is the string %q", what, j, m.text(value))
			}
			rest = rest[len(quoted):]
		} else {
			end := strings.IndexAny(rest, ",)")
			word := rest[:end]
			rest = rest[end:]
			number, err := strconv.ParseInt(word, 0, 64)
			unsigned, uerr := strconv.ParseUint(word, 0, 64)
			if word[0] != '$' && (err != nil || uint64(number) != value) && (uerr != nil || unsigned != value) {
				t.Errorf("%s: argument %d is %#x", what, j, value)
			}
		}
		rest = strings.TrimPrefix(rest, ", ")
	}
}
