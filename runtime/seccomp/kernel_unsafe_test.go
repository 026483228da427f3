//go:build linux

package seccomp

import (
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tare-oci/tare/runtime/linux"
	"golang.org/x/sys/unix"
)

// childMode, in the environment, makes this test binary load filters, which
// cannot be taken off again, and say by its exit how that went.
const childMode = "SECCOMP_TEST_CHILD"

func TestMain(m *testing.M) {
	if mode := os.Getenv(childMode); mode != "" {
		os.Exit(child(mode))
	}
	os.Exit(m.Run())
}

func nativeArch() linux.Arch {
	arch, _ := linux.NativeArch(runtime.GOARCH)
	return arch
}

// loadFilter filters the calling thread from here on.
func loadFilter(p Program) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	code := p.AppendBinary(nil)
	fprog := struct {
		length uint16
		filter *byte
	}{uint16(len(p.Instructions)), &code[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, linux.SECCOMP_SET_MODE_FILTER, uintptr(p.Flags), uintptr(unsafe.Pointer(&fprog)))
	runtime.KeepAlive(code)
	if errno != 0 {
		return errno
	}
	return nil
}

// inThread runs f in a thread that ends with it.
func inThread(f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its filters
		result <- f()
	}()
	return <-result
}

// The filter's errnos begin where the kernel's own for these calls do not.
const firstErrno = 200

// harmless are calls that neither the Go runtime makes nor do anything with
// arguments like ours, and that every architecture has.
var harmless = []string{"getsid", "getpgid", "sched_rr_get_interval", "get_robust_list", "mq_unlink", "kcmp"}

// kernelProfile makes a profile whose actions can be told from outside: errnos
// on harmless calls.
func kernelProfile(g generator) *specs.LinuxSeccomp {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagSpecAllow}}
	for i := range 1 + g.choose(8) {
		errno := uint(firstErrno + i)
		s := specs.LinuxSyscall{Names: []string{pick(g, harmless)}, Action: specs.ActErrno, ErrnoRet: &errno}
		for range g.choose(4) {
			s.Args = append(s.Args, specs.LinuxSeccompArg{
				Index: uint(g.choose(6)), Op: pick(g, someOperators), Value: pick(g, someValues), ValueTwo: pick(g, someValues),
			})
		}
		p.Syscalls = append(p.Syscalls, s)
	}
	return p
}

// child returns 0 if the kernel decided as expected.
func child(mode string) int {
	var err error
	switch mode {
	case "decisions":
		err = kernelDecides()
	case "docker":
		err = kernelWithDocker()
	default: // an action that ends the process
		err = inThread(func() error { return killMe(specs.LinuxSeccompAction(mode)) })
	}
	if err != nil {
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		return 1
	}
	return 0
}

func kernelDecides() error {
	g := fromRand(rand.New(rand.NewPCG(5, 6)))
	for range 40 {
		p := kernelProfile(g)
		program, err := Compile(p, nativeArch())
		if err != nil {
			return err
		}
		err = inThread(func() error {
			if err := loadFilter(program); err != nil {
				return err
			}
			for range 200 {
				if err := decidesAlike(program, g); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func decidesAlike(program Program, g generator) error {
	nr, _ := linux.SyscallNumber(nativeArch(), pick(g, harmless))
	d := Data{Nr: uint32(nr), Arch: nativeArch().Audit()}
	for i := range d.Args {
		d.Args[i] = pick(g, someValues) + uint64(g.choose(3)) - 1
	}
	want, _, err := Interpret(program.Instructions, d)
	if err != nil {
		return err
	}
	a := d.Args
	_, _, errno := syscall.RawSyscall6(uintptr(nr), uintptr(a[0]), uintptr(a[1]), uintptr(a[2]), uintptr(a[3]), uintptr(a[4]), uintptr(a[5]))
	got := uint32(linux.SECCOMP_RET_ALLOW)
	if errno >= firstErrno {
		got = linux.SECCOMP_RET_ERRNO | uint32(errno)
	}
	if got != want {
		return errors.New("the kernel says " + ActionName(got) + ", the interpreter " + ActionName(want) + "\n" + program.String())
	}
	return nil
}

func killMe(action specs.LinuxSeccompAction) error {
	program, err := Compile(&specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Syscalls:      []specs.LinuxSyscall{{Names: []string{"getsid"}, Action: action}},
	}, nativeArch())
	if err != nil {
		return err
	}
	if err := loadFilter(program); err != nil {
		return err
	}
	if _, _, errno := syscall.RawSyscall(unix.SYS_GETSID, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// kernelWithDocker lives under Docker's profile.
func kernelWithDocker() error {
	text, err := os.ReadFile("testdata/docker.json")
	if err != nil {
		return err
	}
	profile, err := decodeProfile(text)
	if err != nil {
		return err
	}
	program, err := Compile(profile, nativeArch())
	if err != nil {
		return err
	}
	return inThread(func() error {
		if err := loadFilter(program); err != nil {
			return err
		}
		for _, c := range []struct {
			name string
			want syscall.Errno
		}{{"getppid", 0}, {"swapoff", syscall.EPERM}, {"clone3", syscall.ENOSYS}, {"add_key", syscall.EPERM}} {
			nr, _ := linux.SyscallNumber(nativeArch(), c.name)
			if _, _, errno := syscall.RawSyscall(uintptr(nr), 0, 0, 0); errno != c.want {
				return errors.New(c.name + ": " + errno.Error())
			}
		}
		if _, _, errno := syscall.RawSyscall(600, 0, 0, 0); errno != syscall.ENOSYS {
			return errors.New("call 600: " + errno.Error())
		}
		return nil
	})
}

// runChild returns what the child said, and how it ended.
func runChild(mode string) (*exec.Cmd, []byte, error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childMode+"="+mode)
	out, err := cmd.CombinedOutput()
	return cmd, out, err
}

func TestKernelDecidesAlike(t *testing.T) {
	for _, mode := range []string{"decisions", "docker"} {
		if _, out, err := runChild(mode); err != nil {
			t.Errorf("%s: %v\n%s", mode, err, out)
		}
	}
}

func TestKernelKills(t *testing.T) {
	cmd, _, err := runChild(string(specs.ActKillProcess))
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if err == nil || !ok || !status.Signaled() || status.Signal() != syscall.SIGSYS {
		t.Errorf("KILL_PROCESS: %v, %v", err, cmd.ProcessState)
	}
	for _, action := range []specs.LinuxSeccompAction{specs.ActTrap, specs.ActErrno, specs.ActTrace} {
		if _, _, err := runChild(string(action)); err == nil {
			t.Errorf("%s: nothing happened", action)
		}
	}
	for _, action := range []specs.LinuxSeccompAction{specs.ActAllow, specs.ActLog} {
		if _, out, err := runChild(string(action)); err != nil {
			t.Errorf("%s: %v\n%s", action, err, out)
		}
	}
}
