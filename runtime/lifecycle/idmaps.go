package lifecycle

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/linux"
	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/program"
)

// userNamespace makes a user namespace with these maps and returns a descriptor
// of it. Its only process is one that waits until we have that, and ends.
func userNamespace(uid, gid []specs.LinuxIDMapping, dir string) (_ *os.File, err error) {
	b := program.NewBuilder(runtime.GOARCH, 0)
	b.Call("read", program.Const(0), b.Bytes(make([]byte, 8)), program.Const(1)).OnZero(program.Exit)
	image, err := b.Image()
	if err != nil {
		return nil, fmt.Errorf("make user namespace: %w", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make user namespace: %w", err)
	}
	pid, err := image.Start(program.Start{Files: []*os.File{r}, Cloneflags: unix.CLONE_NEWUSER, Dir: dir})
	r.Close()
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("make user namespace: %w", err)
	}
	defer func() {
		w.Close()
		if _, werr := wait4(pid); err == nil && werr != nil {
			err = fmt.Errorf("make user namespace: wait: %w", werr)
		}
	}()
	if err := writeMaps(context.Background(), pid, &plan.UserMaps{UID: uid, GID: gid}); err != nil {
		return nil, fmt.Errorf("make user namespace: %w", err)
	}
	return openFile(fmt.Sprintf("/proc/%d/ns/user", pid), unix.O_RDONLY)
}

// containerMaps are the id maps of a container's user namespace.
func containerMaps(s *specs.Spec, dir string) (uid, gid []specs.LinuxIDMapping, err error) {
	for i, ns := range s.Linux.Namespaces {
		if ns.Type == specs.UserNamespace && ns.Path != "" {
			if uid, gid, err = idMaps(ns.Path, dir); err != nil {
				err = &plan.FieldError{Field: fmt.Sprintf("linux.namespaces[%d].path", i), Err: err}
			}
			return uid, gid, err
		}
	}
	return s.Linux.UIDMappings, s.Linux.GIDMappings, nil
}

// idMaps are those of a user namespace, whatever the configuration says of them:
// engines write some that mean nothing where a namespace is joined.
func idMaps(path, dir string) (uid, gid []specs.LinuxIDMapping, err error) {
	ns, err := openNamespace(path)
	if err != nil {
		return nil, nil, err
	}
	defer ns.Close()
	if uid, err = readMap(ns, "/proc/self/uid_map", dir); err == nil {
		gid, err = readMap(ns, "/proc/self/gid_map", dir)
	}
	return uid, gid, err
}

// readMap reads an id map of a user namespace as a process in it does: there may
// be no other in it.
func readMap(ns *os.File, name, dir string) ([]specs.LinuxIDMapping, error) {
	const maxMapBytes = 64 << 10 // 340 lines, the kernel's limit
	b := program.NewBuilder(runtime.GOARCH, 2)
	b.Call("setns", program.Const(0), program.Const(linux.CLONE_NEWUSER))
	file := b.Call("openat", program.Const(linux.AT_FDCWD), b.String(name), program.Const(0), program.Const(0)).Result()
	buf, n := b.Bytes(make([]byte, maxMapBytes)), b.Var()
	again := b.NewLabel()
	b.Bind(again)
	b.Call("read", file, buf, program.Const(maxMapBytes)).OnZero(program.Exit).Into(n)
	b.Call("write", program.Const(1), buf, n)
	b.Call("sched_yield").OnZero(again)
	image, err := b.Image()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	defer r.Close()
	pid, err := image.Start(program.Start{Files: []*os.File{ns, w}, Dir: dir})
	w.Close()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	var maps []specs.LinuxIDMapping
	for lines := bufio.NewScanner(r); lines.Scan(); {
		var m specs.LinuxIDMapping
		if _, err := fmt.Sscan(lines.Text(), &m.ContainerID, &m.HostID, &m.Size); err == nil {
			maps = append(maps, m)
		}
	}
	if _, err := wait4(pid); err != nil {
		return nil, fmt.Errorf("read %s: wait: %w", name, err)
	}
	if len(maps) == 0 {
		return nil, fmt.Errorf("read %s: cannot be read in %s", name, ns.Name())
	}
	return maps, nil
}
