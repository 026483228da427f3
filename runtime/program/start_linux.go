package program

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Start says how a program's process comes into being.
type Start struct {
	// Files become the descriptors 0, 1, 2… of the process; nil leaves one closed.
	Files []*os.File
	// Cloneflags are the namespaces (CLONE_NEW*) that are new for the process. A
	// user namespace is none of them: an exec as a user it does not map drops all
	// capabilities, so a program makes its own, and is root there before it execs.
	Cloneflags uintptr
	// CgroupDir, where not nil, is the cgroup v2 directory to start in.
	CgroupDir *os.File
	// Dir takes the file where anonymous memory may not be executed. It is made
	// where it is missing.
	Dir string
}

// Start runs the image as a new process and returns its process id. The caller
// must wait for it, or exit and leave it to its reaper.
func (im *Image) Start(s Start) (pid int, err error) {
	attr := &syscall.ProcAttr{Env: []string{}, Files: make([]uintptr, len(s.Files)), Sys: &syscall.SysProcAttr{
		Cloneflags: s.Cloneflags,
	}}
	last := len(s.Files)
	for i, f := range s.Files {
		attr.Files[i] = ^uintptr(0)
		if f != nil {
			attr.Files[i] = f.Fd()
			last = max(last, int(f.Fd()))
		}
	}
	// In the child, package syscall moves Files out of each other's way, to
	// numbers above the last, at most one for each and one for its own pipe.
	file, err := im.seal(s.Dir, last+len(s.Files)+2)
	if err != nil {
		return 0, err
	}
	defer unix.Close(file)
	if s.CgroupDir != nil {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(s.CgroupDir.Fd())
	}
	pid, err = syscall.ForkExec("/proc/self/fd/"+strconv.Itoa(file), []string{"tare-init"}, attr)
	if err != nil {
		return 0, fmt.Errorf("start init process: %w", err)
	}
	return pid, nil
}

// NewFile makes an anonymous file for a program that a process loads (Builder.Load).
// It is not executed.
func NewFile() (*os.File, error) {
	const name = "tare-program"
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // MFD_NOEXEC_SEAL came with 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// LoadInto writes the program for a process that loads it from the file.
func (im *Image) LoadInto(file *os.File) error {
	if err := writeAll(int(file.Fd()), im.ELF[dataOffset:]); err != nil {
		return fmt.Errorf("write init program: %w", err)
	}
	return nil
}

// seal writes the image into an anonymous, sealed, executable file and returns
// a descriptor of it that is not below min. Sealed, it can't be changed through
// the /proc/PID/exe of a container (CVE-2019-5736).
func (im *Image) seal(dir string, min int) (int, error) {
	const name = "tare-init"
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // MFD_EXEC came with 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if errors.Is(err, unix.EACCES) { // vm.memfd_noexec=2
		return im.unlinked(dir, min)
	}
	if err != nil {
		return -1, fmt.Errorf("memfd_create: %w", err)
	}
	defer func() { unix.Close(fd) }()
	if err := writeAll(fd, im.ELF); err != nil {
		return -1, fmt.Errorf("write init program: %w", err)
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return -1, fmt.Errorf("seal init program: %w", err)
	}
	return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, min)
}

// unlinked is seal for machines that refuse to execute anonymous memory: a
// file in dir without a name, readable only.
func (im *Image) unlinked(dir string, min int) (int, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return -1, fmt.Errorf("create init program: %w", err)
	}
	path := filepath.Join(dir, ".init-"+strconv.Itoa(os.Getpid()))
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o700)
	if err != nil {
		return -1, fmt.Errorf("create init program %s: %w", path, err)
	}
	defer os.Remove(path)
	err = writeAll(fd, im.ELF)
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	if err != nil {
		return -1, fmt.Errorf("write init program %s: %w", path, err)
	}
	fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open init program %s: %w", path, err)
	}
	defer unix.Close(fd)
	return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, min)
}

func writeAll(fd int, data []byte) error {
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}
