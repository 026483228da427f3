package lifecycle

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/host"
	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/program"
	"github.com/tare-oci/tare/safepath"
)

// Facts gathers what Compile has to know of a bundle's files: what the sources
// of bind mounts are, where mount points lead to and what mounts hide, and the
// user's home.
func Facts(s *specs.Spec, machine host.Facts, bundle, id string) (*plan.Facts, error) {
	f := &plan.Facts{Host: machine, ID: id, Bundle: bundle, Sources: map[string]plan.Source{}, Mountpoints: map[string]string{}}
	if s.Linux != nil && s.Linux.MountLabel != "" {
		f.Host.ProbeLSM()
	}
	v := newSurveyor(s, bundle, f)
	if err := v.sources(); err != nil {
		return nil, err
	}
	if s.Root == nil {
		return nil, &plan.FieldError{Field: "root", Err: errors.New("missing")}
	}
	var err error
	if v.root, err = safepath.OpenRoot(absolute(bundle, s.Root.Path)); err != nil {
		return nil, &plan.FieldError{Field: "root.path", Err: err}
	}
	defer v.root.Close()
	v.mountpoints()
	if err := v.tmpfs(); err != nil {
		return nil, err
	}
	v.devices()
	if err := v.checkNull(); err != nil {
		return nil, err
	}
	if s.Process != nil && !hasHome(s.Process.Env) {
		f.Home = homeOf(v.root, s.Process.User.UID)
	}
	return f, processFacts(s, f)
}

func absolute(bundle, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return bundle + "/" + path
}

// liesInAny says whether a place lies below one of others. All are clean.
func liesInAny(place string, others []string) bool {
	for _, o := range others {
		if len(place) > len(o) && place[len(o)] == '/' && place[:len(o)] == o {
			return true
		}
	}
	return false
}

// linkTarget finds where a destination with a symbolic link in its path leads,
// also where nothing is there yet, as with /etc/resolv.conf of many images.
func linkTarget(root *safepath.Root, destination string) (string, bool) {
	name := strings.TrimLeft(destination, "/")
	if name == "" {
		return "", false
	}
	// The common case costs one or two calls: it is there, or it is not, without a link.
	fd, err := unix.Openat2(root.FD(), name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
	if err == nil {
		unix.Close(fd)
	}
	if !errors.Is(err, unix.ELOOP) {
		return "", false
	}
	to, err := root.Resolve(name)
	return to, err == nil && to != name
}

// hasHome says whether an environment names a home directory, the last time
// that it names any.
func hasHome(env []string) bool {
	home := ""
	for _, e := range env {
		if value, ok := strings.CutPrefix(e, "HOME="); ok {
			home = value
		}
	}
	return home != ""
}

// homeOf reads a user's home directory from the container's /etc/passwd.
func homeOf(root *safepath.Root, uid uint32) string {
	file, err := root.OpenRegular("etc/passwd")
	if err != nil {
		return "" // an image without users is a good image
	}
	defer file.Close()
	const maxPasswd = 1 << 20
	lines := bufio.NewScanner(io.LimitReader(file, maxPasswd))
	id := strconv.FormatUint(uint64(uid), 10)
	for lines.Scan() {
		if f := strings.Split(lines.Text(), ":"); len(f) >= 6 && f[2] == id {
			return f[5]
		}
	}
	return ""
}

// A family is the parent's and the child's ends of what lies between them.
type family struct {
	sync    *os.File   // the parent's end of the socket
	program *os.File   // that the child loads, where it does
	opened  []*os.File // closed when the child runs
	files   []*os.File // the child's descriptors 0, 1, 2…
	sources sources
	hooks   inner
}

// close closes what outlasts the start of the child.
func (f *family) close() {
	for _, x := range []*os.File{f.sync, f.program} {
		if x != nil {
			x.Close()
		}
	}
	f.hooks.close()
}

// sources are where the descriptors of a plan come from.
type sources struct {
	stdio   [3]*os.File
	gate    *os.File
	console *os.File
	init    *os.File
	root    *os.File // of a running container in the host's mount namespace
	cgroups []*os.File
	dir     string // takes a program's file where memory may not be executed
}

// assemble opens what the plan's process is started with.
func assemble(p *plan.Plan, src sources) (f *family, err error) {
	f = &family{sources: src}
	defer func() {
		if err != nil {
			f.closeOpened()
			f.close()
		}
	}()
	for _, file := range p.Files {
		opened, err := f.open(file)
		if err != nil && file.Field != "" {
			err = &plan.FieldError{Field: file.Field, Err: err}
		}
		if err != nil {
			return f, err
		}
		f.files = append(f.files, opened)
	}
	if p.Listener != nil {
		return f, tellSender(f.sync)
	}
	return f, nil
}

func (f *family) open(file plan.File) (_ *os.File, err error) {
	keep := func(x *os.File, err error) (*os.File, error) {
		if err == nil {
			f.opened = append(f.opened, x)
		}
		return x, err
	}
	switch file.Kind {
	case plan.Stdio:
		if f.sources.stdio[file.Index] == nil && f.sources.console != nil {
			// The terminal will take its number, so nothing else may before.
			return keep(openFile(os.DevNull, unix.O_RDWR))
		}
		return f.sources.stdio[file.Index], nil
	case plan.Preserved:
		// A copy, because closing the original is up to the caller.
		fd, err := unix.FcntlInt(uintptr(3+file.Index), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("preserve descriptor %d: %w", 3+file.Index, err)
		}
		return keep(os.NewFile(uintptr(fd), "preserved"), nil)
	case plan.SyncPipe:
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("socketpair: %w", err)
		}
		f.sync = os.NewFile(uintptr(pair[0]), "sync")
		return keep(os.NewFile(uintptr(pair[1]), "sync"), nil)
	case plan.Program:
		f.program, err = program.NewFile()
		return f.program, err
	case plan.StartGate:
		return f.sources.gate, nil
	case plan.Console:
		return f.sources.console, nil
	case plan.Cgroup:
		return f.sources.cgroups[file.Index], nil
	case plan.Init:
		return f.sources.init, nil
	case plan.Root:
		return f.sources.root, nil
	case plan.Namespace:
		return keep(openNamespace(file.Path))
	case plan.HookState:
		return f.hooks.state(file.Index)
	case plan.HookOutput:
		return keep(f.hooks.output(file.Index))
	case plan.Tree:
		return keep(f.copyTree(file))
	case plan.Copied:
		return keep(copyUp(file.Copy, f.sources.dir))
	}
	return nil, fmt.Errorf("unknown file %q", file.Kind)
}

// preserved is how many of the caller's descriptors from 3 up the process gets:
// all that are asked for, and all of them open, before a plan is made of so many.
func preserved(counts ...int) (total int, err error) {
	for _, n := range counts {
		if n < 0 {
			return 0, fmt.Errorf("preserve %d descriptors: a negative number", n)
		}
		for ; n > 0; n-- {
			// Ours are closed on exec; what the caller left open for us is not.
			flags, err := unix.FcntlInt(uintptr(3+total), unix.F_GETFD, 0)
			if err != nil || flags&unix.FD_CLOEXEC != 0 {
				return 0, fmt.Errorf("preserve descriptor %d: it is not open", 3+total)
			}
			total++
		}
	}
	return total, nil
}

func (f *family) closeOpened() {
	for _, x := range f.opened {
		x.Close()
	}
	f.opened = nil
}

// openFile opens without package os's poller, which the descriptors here have
// no use for.
func openFile(path string, flags int) (*os.File, error) {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// openNamespace opens a namespace's file and nothing else: a FIFO in its place
// would hold us up, a device may do anything once it is open.
func openNamespace(path string) (*os.File, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	if fs.Type != unix.NSFS_MAGIC {
		return nil, fmt.Errorf("%s: not a namespace", path)
	}
	return openFile(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
}

// newGate makes the socket that start connects to.
func newGate() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	return os.NewFile(uintptr(fd), gateName), nil
}

// listen gives it its place. It is reached through the directory's descriptor,
// because a socket's path has 108 bytes at most.
func listen(gate *os.File, dir string) error {
	fd := int(gate.Fd())
	err := through(dir, gateName, func(path string) error { return unix.Bind(fd, &unix.SockaddrUnix{Name: path}) })
	if err == nil {
		err = unix.Listen(fd, 8)
	}
	if err != nil {
		return fmt.Errorf("listen on %s: %w", filepath.Join(dir, gateName), err)
	}
	return nil
}

// through calls f with a short path of a socket in dir.
func through(dir, name string, f func(path string) error) error {
	if path := filepath.Join(dir, name); len(path) < 100 {
		return f(path)
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f("/proc/self/fd/" + strconv.Itoa(fd) + "/" + name)
}

// connect opens a stream to a unix socket.
func connect(path string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "connect", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// ownStdio gives the caller's pipes to the container's user, who could not
// reopen them otherwise. Terminals and the null device stay as they are.
func ownStdio(stdio [3]*os.File, uid, gid uint32) {
	for _, f := range stdio {
		var st unix.Stat_t
		if f == nil || unix.Fstat(int(f.Fd()), &st) != nil || st.Mode&unix.S_IFMT == unix.S_IFCHR || st.Uid == uid {
			continue
		}
		// A pipe of another user, or a file on a read-only file system, stays
		// its owner's: the container can use the descriptor all the same.
		_ = unix.Fchown(int(f.Fd()), int(uid), int(gid))
	}
}

// hostID maps an id of the container to the host's.
func hostID(id uint32, maps []specs.LinuxIDMapping) uint32 {
	if on, ok := mappedID(id, maps); ok {
		return on
	}
	return id
}

func mappedID(id uint32, maps []specs.LinuxIDMapping) (uint32, bool) {
	for _, m := range maps {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return m.HostID + id - m.ContainerID, true
		}
	}
	return 0, false
}

// patience is how long a process may take before we ask whether it is frozen.
const patience = 500 // milliseconds

// receive reads one message of the child, or nothing when it has ended. A child
// that is frozen, as frozen tells, says nothing for as long as it is.
func receive(ctx context.Context, f *os.File, frozen func() (bool, error)) ([]byte, error) {
	message, _, err := receiveFrom(ctx, f, frozen)
	return message, err
}

// receiveFrom is receive, and says which process has sent the message where the
// socket tells (SO_PASSCRED), else 0.
func receiveFrom(ctx context.Context, f *os.File, frozen func() (bool, error)) (message []byte, sender int, err error) {
	buf := make([]byte, 64)
	stop := context.AfterFunc(ctx, func() { _ = unix.Shutdown(int(f.Fd()), unix.SHUT_RDWR) })
	defer stop()
	for reset := false; ; {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}, patience)
		if errors.Is(err, unix.EINTR) {
			continue // to read now could wait for ever
		}
		if ready == 0 && err == nil {
			if is, err := frozen(); err == nil && is {
				return nil, 0, cgroup.ErrFrozen
			}
			continue
		}
		n, sender, err := readFrom(f, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.ECONNRESET) && !reset {
			// It ended without reading what we sent. What it said before comes next.
			reset = true
			continue
		}
		if err != nil {
			return nil, 0, fmt.Errorf("read from container init: %w", err)
		}
		if ctx.Err() != nil {
			return nil, 0, context.Cause(ctx)
		}
		return buf[:n], sender, nil
	}
}

// readFrom reads from a socket and says which process has sent it, 0 where the socket
// does not tell.
func readFrom(f *os.File, buf []byte) (n, sender int, err error) {
	var control [64]byte
	n, size, _, _, err := unix.Recvmsg(int(f.Fd()), buf, control[:], unix.MSG_CMSG_CLOEXEC)
	if err != nil || size == 0 {
		return max(n, 0), 0, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:size])
	if err != nil {
		return n, 0, err
	}
	for _, m := range messages {
		if cred, err := unix.ParseUnixCredentials(&m); err == nil {
			return n, int(cred.Pid), nil
		}
	}
	return n, 0, nil
}
