package plan

import (
	"errors"
	"fmt"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/linux"
	"github.com/tare-oci/tare/runtime/program"
	"github.com/tare-oci/tare/runtime/seccomp"
)

// A Listener is where the listener of a filter with SCMP_ACT_NOTIFY goes. While
// it loads the filter, the process says its number to whoever hears its
// failures (a message of ListenerSize bytes, little-endian), who takes it
// out of the process with pidfd_getfd(2), passes it on and answers with a byte.
type Listener struct {
	// Path is that of the agent's unix socket; "@" begins an abstract name.
	Path string `json:"path"`
	// Metadata is what the agent is told besides.
	Metadata string `json:"metadata,omitempty"`
}

// ListenerSize is the length in bytes of the message that says a listener's
// number. Other messages are longer, or shorter.
const ListenerSize = 4

// filter compiles linux.seccomp, and returns nil where there is none.
func (c *compiler) filter() (*loadSeccomp, error) {
	profile := c.linux().Seccomp
	if seccomp.Disabled(profile) {
		return nil, nil
	}
	native, ok := linux.NativeArch(c.facts.Host.Arch)
	if !ok {
		return nil, fieldError("linux.seccomp", "unknown architecture %s", c.facts.Host.Arch)
	}
	compiled, err := seccomp.Compile(profile, native)
	if e := (*seccomp.FieldError)(nil); errors.As(err, &e) {
		return nil, &FieldError{Field: e.Field, Err: e.Err}
	}
	if err != nil {
		return nil, fieldError("linux.seccomp", "%w", err)
	}
	if compiled.Flags&linux.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV != 0 && !c.facts.Host.Kernel.AtLeast(5, 19) {
		return nil, fieldError("linux.seccomp.flags", "%s needs Linux 5.19, this is %v", specs.LinuxSeccompFlagWaitKillableRecv, c.facts.Host.Kernel)
	}
	if compiled.Notifies() {
		path := profile.ListenerPath
		if !strings.HasPrefix(path, "@") {
			path = c.absolute(path)
		}
		c.plan.Listener = &Listener{path, profile.ListenerMetadata}
	}
	return &loadSeccomp{compiled.AppendBinary(nil), compiled.Flags}, nil
}

// loadSeccomp installs the system call filter. Where it has a listener, two
// more calls follow, as few as can be, because they pass the filter already:
// the compiler has refused profiles in which an agent would have to answer the first.
type loadSeccomp struct {
	Filter []byte // struct sock_filter, 8 bytes each
	Flags  uint64
}

func (o loadSeccomp) listens() bool { return o.Flags&linux.SECCOMP_FILTER_FLAG_NEW_LISTENER != 0 }

func (o loadSeccomp) String() string {
	s := fmt.Sprintf("seccomp filter of %d instructions, flags %#x", len(o.Filter)/8, o.Flags)
	if o.listens() {
		s += ", hand over the listener"
	}
	return s
}

func (o loadSeccomp) lower(l *lowering) {
	prog := l.b.Words(program.Const(len(o.Filter)/8), l.b.Bytes(o.Filter))
	load := l.b.Call("seccomp", program.Const(linux.SECCOMP_SET_MODE_FILTER), program.Const(o.Flags), prog)
	if !o.listens() {
		return
	}
	l.b.Call("write", l.report, l.b.Words(load.Result()), program.Const(ListenerSize))
	l.b.Call("read", l.report, l.b.Bytes(make([]byte, 8)), program.Const(1)).OnZero(program.Exit)
}
