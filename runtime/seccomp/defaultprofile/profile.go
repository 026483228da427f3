// Package defaultprofile is the seccomp profile that `tare run` gives to
// containers (linux.seccomp of runtime-spec 1.3.0 config-linux.md): the calls
// that Docker's and Moby's default profile allows, so that what runs there runs
// here. It is data for the engine; the runtime has no default of its own.
//
// All else fails with EPERM, except that clone3, whose flags a filter cannot
// see, fails with ENOSYS, which makes C libraries fall back on clone; and calls
// newer than the profile do the same, which the compiler of profiles sees to.
package defaultprofile

import (
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tare-oci/tare/runtime/linux"
)

// always is allowed to every container. Names that a kernel or an architecture does not
// have do no harm. Left out on purpose: io_uring, whose operations no filter
// sees; userfaultfd; keyctl and its like, as keyrings are not namespaced; kexec.
const always = `
accept accept4 access adjtimex alarm arch_prctl arm_fadvise64_64 arm_sync_file_range
bind breakpoint brk
cacheflush cachestat capget capset chdir chmod chown chown32
clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat
dup dup2 dup3
epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old
eventfd eventfd2 execve execveat exit exit_group
faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2
fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr
fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64
futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat
get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32
getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority
getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt
gettid gettimeofday getuid getuid32 getxattr getxattrat
inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit
ioctl ioprio_get ioprio_set ipc
kill
landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat
listen listmount listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64
madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat
mlock mlock2 mlockall mmap mmap2 modify_ldt mprotect
mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64
mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap
name_to_handle_at nanosleep newfstatat _newselect
open openat openat2
pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64
prctl pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv process_vm_writev
pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2
read readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages
removexattr removexattrat rename renameat renameat2 restart_syscall riscv_flush_icache riscv_hwprobe
rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr
sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr
sched_setparam sched_setscheduler sched_yield seccomp select
semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto
set_robust_list set_thread_area set_tid_address set_tls setfsgid setfsgid32 setfsuid setfsuid32
setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32
setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt
setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown
sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice
stat stat64 statfs statfs64 statmount statx swapcontext symlink symlinkat
sync sync_file_range sync_file_range2 syncfs sysinfo
tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64
timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64
timerfd_settime timerfd_settime64 times tkill truncate truncate64
ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes
vfork vmsplice wait4 waitid waitpid write writev
`

// byCapability is what a capability opens besides: without it the kernel
// refuses the calls anyway, and the filter keeps their code out of reach.
var byCapability = [...]struct{ capability, names string }{
	{"CAP_BPF", "bpf"},
	{"CAP_DAC_READ_SEARCH", "open_by_handle_at"},
	{"CAP_PERFMON", "perf_event_open"},
	{"CAP_SYS_ADMIN", "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie " +
		"lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree " +
		"perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare"},
	{"CAP_SYS_BOOT", "reboot"},
	{"CAP_SYS_CHROOT", "chroot"},
	{"CAP_SYS_MODULE", "delete_module finit_module init_module"},
	{"CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"},
	{"CAP_SYS_PACCT", "acct"},
	{"CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise"},
	{"CAP_SYS_RAWIO", "ioperm iopl"},
	{"CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"},
	{"CAP_SYS_TTY_CONFIG", "vhangup"},
	{"CAP_SYSLOG", "syslog"},
}

// personalities are the execution domains a program may choose: Linux, with
// 32-bit uname (8) or the uname of 2.6 (0x20000) or both, and asking which it is.
var personalities = [...]uint64{0, 8, 0x20000, 0x20008, 0xffffffff}

// Socket families. All below AF_DECnet are allowed; of those above, the ones that
// kernels still have, but not AF_ALG (38), which is a large attack surface for
// little use, and not AF_VSOCK (40), which reaches other machines past
// all network namespaces.
const firstOddFamily = 12

var laterFamilies = [...]uint64{
	13, 14, 15, 16, 17, 18, // NETBEUI SECURITY KEY NETLINK PACKET ASH
	21, 22, 24, 26, 27, 28, 29, 30, 31, // RDS SNA PPPOX LLC IB MPLS CAN TIPC BLUETOOTH
	32, 33, 35, 36, 39, // IUCV RXRPC PHONET IEEE802154 NFC
	41, 42, 43, 44, 45, // KCM QIPCRTR SMC XDP MCTP
}

// newNamespaces are the clone flags that need CAP_SYS_ADMIN, or that would give
// it in a user namespace.
const newNamespaces = linux.CLONE_NEWNS | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC | linux.CLONE_NEWUSER |
	linux.CLONE_NEWPID | linux.CLONE_NEWNET | linux.CLONE_NEWCGROUP

// New returns the profile for containers with the given capabilities (those of the bounding
// set) on a kernel of the native architecture.
func New(native linux.Arch, capabilities []string) *specs.LinuxSeccomp {
	eperm, enosys := uint(linux.EPERM), uint(linux.ENOSYS)
	names := strings.Fields(always)
	for _, c := range byCapability {
		if slices.Contains(capabilities, c.capability) {
			names = append(names, strings.Fields(c.names)...)
		}
	}
	p := &specs.LinuxSeccomp{
		DefaultAction:   specs.ActErrno,
		DefaultErrnoRet: &eperm,
		Architectures:   architectures(native),
		Syscalls:        []specs.LinuxSyscall{{Names: names, Action: specs.ActAllow}},
	}
	p.Syscalls = append(p.Syscalls, allowIf("socket", 0, firstOddFamily, specs.OpLessThan))
	for _, family := range laterFamilies {
		p.Syscalls = append(p.Syscalls, allowIf("socket", 0, family, specs.OpEqualTo))
	}
	for _, value := range personalities {
		p.Syscalls = append(p.Syscalls, allowIf("personality", 0, value, specs.OpEqualTo))
	}
	if !slices.Contains(capabilities, "CAP_SYS_ADMIN") {
		flags := uint(0) // which of clone's arguments has the flags
		if native == linux.ArchS390X {
			flags = 1
		}
		p.Syscalls = append(p.Syscalls,
			allowIf("clone", flags, newNamespaces, specs.OpMaskedEqual), // none of them
			specs.LinuxSyscall{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &enosys})
	}
	return p
}

// allowIf allows a call if one argument compares with value.
func allowIf(name string, arg uint, value uint64, op specs.LinuxSeccompOperator) specs.LinuxSyscall {
	return specs.LinuxSyscall{
		Names:  []string{name},
		Action: specs.ActAllow,
		Args:   []specs.LinuxSeccompArg{{Index: arg, Value: value, Op: op}},
	}
}

// architectures lists the native one and its kernel's other ABIs.
func architectures(native linux.Arch) []specs.Arch {
	switch native {
	case linux.ArchX86_64:
		return []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
	case linux.ArchAARCH64:
		return []specs.Arch{specs.ArchAARCH64, specs.ArchARM}
	}
	return []specs.Arch{native.Spec()}
}
