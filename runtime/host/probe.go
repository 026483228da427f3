//go:build linux

package host

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// initUserNS is the inode number every kernel gives the initial user namespace (PROC_USER_INIT_INO).
const initUserNS = "user:[4026531837]"

// Probe looks at this machine. It makes about a dozen system calls on cgroup v2, and reads mountinfo only where version 1 hierarchies
// have to be found.
func Probe() (Facts, error) {
	f := Facts{Arch: runtime.GOARCH, UID: unix.Geteuid(), GID: unix.Getegid()}
	var err error
	if f.Kernel, err = kernelVersion(); err != nil {
		return Facts{}, err
	}
	if err := f.Kernel.check(); err != nil {
		return Facts{}, err
	}
	if f.InUserNamespace, err = InUserNamespace(); err != nil {
		return Facts{}, err
	}
	f.LastCap = lastCap()
	if f.Caps, err = effectiveCaps(); err != nil {
		return Facts{}, err
	}
	nnp, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err != nil {
		return Facts{}, fmt.Errorf("host: prctl(PR_GET_NO_NEW_PRIVS): %w", err)
	}
	f.NoNewPrivs = nnp == 1
	if err := f.probeCgroups(); err != nil {
		return Facts{}, err
	}
	return f, nil
}

// check refuses a kernel below the floor.
func (v Version) check() error {
	if floor := Floor(); !v.AtLeast(floor.Major, floor.Minor) {
		return fmt.Errorf("host: Linux %s: %w: tare needs %s or newer", v, ErrKernelTooOld, floor)
	}
	return nil
}

func kernelVersion() (Version, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return Version{}, fmt.Errorf("host: uname: %w", err)
	}
	return parseVersion(unix.ByteSliceToString(u.Release[:]))
}

// parseVersion reads the first two numbers of a release such as "6.1.0-42-amd64".
func parseVersion(release string) (Version, error) {
	var n [2]int
	rest := release
	for i := range n {
		digits := 0
		for digits < len(rest) && digits < 5 && rest[digits] >= '0' && rest[digits] <= '9' {
			n[i] = n[i]*10 + int(rest[digits]-'0')
			digits++
		}
		if digits == 0 || i == 0 && (digits == len(rest) || rest[digits] != '.') {
			return Version{}, fmt.Errorf("host: kernel release %q: not a version", release)
		}
		if i == 0 {
			rest = rest[digits+1:]
		}
	}
	return Version{Major: n[0], Minor: n[1]}, nil
}

// InUserNamespace reports whether we are in another than the initial user namespace.
func InUserNamespace() (bool, error) {
	var buf [64]byte
	n, err := unix.Readlink("/proc/self/ns/user", buf[:])
	if errors.Is(err, unix.ENOENT) {
		return false, nil // CONFIG_USER_NS=n, or no /proc: the cgroup probe tells about the latter
	}
	if err != nil {
		return false, fmt.Errorf("host: readlink /proc/self/ns/user: %w", err)
	}
	return string(buf[:n]) != initUserNS, nil
}

// lastCap asks the kernel upwards from CAP_CHECKPOINT_RESTORE, which every kernel above the floor has, so that it
// usually takes one call and no file.
func lastCap() int {
	last := unix.CAP_CHECKPOINT_RESTORE
	for last < 63 {
		if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(last+1), 0, 0, 0); err != nil {
			break
		}
		last++
	}
	return last
}

func effectiveCaps() (uint64, error) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return 0, fmt.Errorf("host: capget: %w", err)
	}
	return uint64(data[0].Effective) | uint64(data[1].Effective)<<32, nil
}

// ProbeLSM fills AppArmor and SELinux.
func (f *Facts) ProbeLSM() {
	var buf [1]byte
	n, err := readFile("/sys/module/apparmor/parameters/enabled", buf[:])
	f.AppArmor = err == nil && n == 1 && buf[0] == 'Y'
	var st unix.Statfs_t
	f.SELinux = unix.Statfs("/sys/fs/selinux", &st) == nil && int64(st.Type) == unix.SELINUX_MAGIC
}

// ProbeMemfd fills MemfdNoexec. A kernel without the setting (before 6.3) has no restriction.
func (f *Facts) ProbeMemfd() {
	var buf [1]byte
	f.MemfdNoexec = 0
	if n, err := readFile("/proc/sys/vm/memfd_noexec", buf[:]); err == nil && n == 1 && buf[0] >= '0' && buf[0] <= '2' {
		f.MemfdNoexec = int(buf[0] - '0')
	}
}

// readFile reads up to len(buf) bytes of a kernel file. It goes round package os, whose files enter the
// runtime's poller at three more system calls each.
func readFile(path string, buf []byte) (int, error) {
	fd, err := open(path)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return read(fd, buf)
}

func open(path string) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

func read(fd int, buf []byte) (int, error) {
	for {
		n, err := unix.Read(fd, buf)
		if err != unix.EINTR {
			return n, err
		}
	}
}
