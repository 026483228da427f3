package linux

// Flags of clone(2), clone3(2), unshare(2) and setns(2).
const (
	CLONE_NEWTIME   = 0x80 // clone3, unshare and setns only: it lies in clone's exit signal byte
	CLONE_VM        = 0x100
	CLONE_FS        = 0x200
	CLONE_FILES     = 0x400
	CLONE_SIGHAND   = 0x800
	CLONE_PIDFD     = 0x1000
	CLONE_PTRACE    = 0x2000
	CLONE_VFORK     = 0x4000
	CLONE_PARENT    = 0x8000
	CLONE_THREAD    = 0x10000
	CLONE_NEWNS     = 0x20000
	CLONE_SYSVSEM   = 0x40000
	CLONE_UNTRACED  = 0x800000
	CLONE_NEWCGROUP = 0x2000000
	CLONE_NEWUTS    = 0x4000000
	CLONE_NEWIPC    = 0x8000000
	CLONE_NEWUSER   = 0x10000000
	CLONE_NEWPID    = 0x20000000
	CLONE_NEWNET    = 0x40000000

	CLONE_INTO_CGROUP = 0x200000000 // clone3, 5.7
)

// Flags of mount(2).
const (
	MS_RDONLY      = 0x1
	MS_NOSUID      = 0x2
	MS_NODEV       = 0x4
	MS_NOEXEC      = 0x8
	MS_SYNCHRONOUS = 0x10
	MS_REMOUNT     = 0x20
	MS_MANDLOCK    = 0x40
	MS_DIRSYNC     = 0x80
	MS_NOSYMFOLLOW = 0x100 // 5.10
	MS_NOATIME     = 0x400
	MS_NODIRATIME  = 0x800
	MS_BIND        = 0x1000
	MS_MOVE        = 0x2000
	MS_REC         = 0x4000
	MS_SILENT      = 0x8000
	MS_POSIXACL    = 0x10000
	MS_UNBINDABLE  = 0x20000
	MS_PRIVATE     = 0x40000
	MS_SLAVE       = 0x80000
	MS_SHARED      = 0x100000
	MS_RELATIME    = 0x200000
	MS_I_VERSION   = 0x800000
	MS_STRICTATIME = 0x1000000
	MS_LAZYTIME    = 0x2000000
)

// Flags of umount2(2).
const (
	MNT_FORCE       = 0x1
	MNT_DETACH      = 0x2
	MNT_EXPIRE      = 0x4
	UMOUNT_NOFOLLOW = 0x8
)

// The mount API of 5.2 and mount_setattr(2) of 5.12. The atime modes are values
// of a field, not bits of a set: who changes one clears all of MOUNT_ATTR__ATIME.
const (
	MOUNT_ATTR_RDONLY      = 0x1
	MOUNT_ATTR_NOSUID      = 0x2
	MOUNT_ATTR_NODEV       = 0x4
	MOUNT_ATTR_NOEXEC      = 0x8
	MOUNT_ATTR__ATIME      = 0x70
	MOUNT_ATTR_RELATIME    = 0x0
	MOUNT_ATTR_NOATIME     = 0x10
	MOUNT_ATTR_STRICTATIME = 0x20
	MOUNT_ATTR_NODIRATIME  = 0x80
	MOUNT_ATTR_IDMAP       = 0x100000
	MOUNT_ATTR_NOSYMFOLLOW = 0x200000 // 5.14
	MountAttrSizeBytes     = 32       // struct mount_attr, version 0

	FSOPEN_CLOEXEC = 0x1

	FSPICK_CLOEXEC          = 0x1
	FSPICK_SYMLINK_NOFOLLOW = 0x2
	FSPICK_NO_AUTOMOUNT     = 0x4
	FSPICK_EMPTY_PATH       = 0x8

	FSCONFIG_SET_FLAG        = 0
	FSCONFIG_SET_STRING      = 1
	FSCONFIG_SET_BINARY      = 2
	FSCONFIG_SET_PATH        = 3
	FSCONFIG_SET_PATH_EMPTY  = 4
	FSCONFIG_SET_FD          = 5
	FSCONFIG_CMD_CREATE      = 6
	FSCONFIG_CMD_RECONFIGURE = 7
	FSCONFIG_CMD_CREATE_EXCL = 8 // 6.6

	FSMOUNT_CLOEXEC = 0x1

	OPEN_TREE_CLONE   = 0x1
	OPEN_TREE_CLOEXEC = 0x80000

	MOVE_MOUNT_F_SYMLINKS   = 0x1
	MOVE_MOUNT_F_AUTOMOUNTS = 0x2
	MOVE_MOUNT_F_EMPTY_PATH = 0x4
	MOVE_MOUNT_T_SYMLINKS   = 0x10
	MOVE_MOUNT_T_AUTOMOUNTS = 0x20
	MOVE_MOUNT_T_EMPTY_PATH = 0x40
	MOVE_MOUNT_SET_GROUP    = 0x100 // 5.15
	MOVE_MOUNT_BENEATH      = 0x200 // 6.5
)

// The *at() family and openat2(2).
const (
	AT_FDCWD            = -100
	AT_SYMLINK_NOFOLLOW = 0x100
	AT_EACCESS          = 0x200
	AT_REMOVEDIR        = 0x200
	AT_SYMLINK_FOLLOW   = 0x400
	AT_NO_AUTOMOUNT     = 0x800
	AT_EMPTY_PATH       = 0x1000
	AT_RECURSIVE        = 0x8000

	RESOLVE_NO_XDEV       = 0x1
	RESOLVE_NO_MAGICLINKS = 0x2
	RESOLVE_NO_SYMLINKS   = 0x4
	RESOLVE_BENEATH       = 0x8
	RESOLVE_IN_ROOT       = 0x10
	RESOLVE_CACHED        = 0x20 // 5.12
	OpenHowSizeBytes      = 24   // struct open_how, version 0
)

// Open flags that are the same on every architecture tare runs on; the others
// are in OpenFlags.
const (
	O_RDONLY   = 0x0
	O_WRONLY   = 0x1
	O_RDWR     = 0x2
	O_CREAT    = 0x40
	O_EXCL     = 0x80
	O_NOCTTY   = 0x100
	O_TRUNC    = 0x200
	O_APPEND   = 0x400
	O_NONBLOCK = 0x800
	O_DSYNC    = 0x1000
	O_NOATIME  = 0x40000
	O_CLOEXEC  = 0x80000
	O_SYNC     = 0x101000
	O_PATH     = 0x200000
)

// File types and mode bits of st_mode and mknod(2).
const (
	S_IFMT   = 0xf000
	S_IFSOCK = 0xc000
	S_IFLNK  = 0xa000
	S_IFREG  = 0x8000
	S_IFBLK  = 0x6000
	S_IFDIR  = 0x4000
	S_IFCHR  = 0x2000
	S_IFIFO  = 0x1000
	S_ISUID  = 0x800
	S_ISGID  = 0x400
	S_ISVTX  = 0x200
)

// fcntl(2), close_range(2), ioctl(2).
const (
	F_DUPFD         = 0
	F_GETFD         = 1
	F_SETFD         = 2
	F_GETFL         = 3
	F_SETFL         = 4
	F_DUPFD_CLOEXEC = 1030
	F_ADD_SEALS     = 1033
	F_GET_SEALS     = 1034
	F_SEAL_SEAL     = 0x1
	F_SEAL_SHRINK   = 0x2
	F_SEAL_GROW     = 0x4
	F_SEAL_WRITE    = 0x8
	F_SEAL_EXEC     = 0x20 // 6.3
	FD_CLOEXEC      = 1

	CLOSE_RANGE_UNSHARE = 0x2
	CLOSE_RANGE_CLOEXEC = 0x4 // 5.11

	MFD_CLOEXEC       = 0x1
	MFD_ALLOW_SEALING = 0x2
	MFD_NOEXEC_SEAL   = 0x8  // 6.3
	MFD_EXEC          = 0x10 // 6.3

	TCSETS       = 0x5402
	TIOCSCTTY    = 0x540e
	TIOCGWINSZ   = 0x5413
	TIOCSWINSZ   = 0x5414
	TIOCSPTLCK   = 0x40045431
	TIOCGPTN     = 0x80045430
	TIOCGPTPEER  = 0x5441 // 4.13
	SIOCGIFFLAGS = 0x8913
	SIOCSIFFLAGS = 0x8914
	IFF_UP       = 0x1
	IFF_RUNNING  = 0x40
)

// prctl(2).
const (
	PR_SET_PDEATHSIG         = 1
	PR_GET_DUMPABLE          = 3
	PR_SET_DUMPABLE          = 4
	PR_GET_KEEPCAPS          = 7
	PR_SET_KEEPCAPS          = 8
	PR_SET_NAME              = 15
	PR_GET_SECCOMP           = 21
	PR_SET_SECCOMP           = 22
	PR_CAPBSET_READ          = 23
	PR_CAPBSET_DROP          = 24
	PR_GET_SECUREBITS        = 27
	PR_SET_SECUREBITS        = 28
	PR_SET_MM                = 35
	PR_SET_CHILD_SUBREAPER   = 36
	PR_GET_CHILD_SUBREAPER   = 37
	PR_SET_NO_NEW_PRIVS      = 38
	PR_GET_NO_NEW_PRIVS      = 39
	PR_SET_THP_DISABLE       = 41
	PR_CAP_AMBIENT           = 47
	PR_CAP_AMBIENT_IS_SET    = 1
	PR_CAP_AMBIENT_RAISE     = 2
	PR_CAP_AMBIENT_LOWER     = 3
	PR_CAP_AMBIENT_CLEAR_ALL = 4
	PR_SET_IO_FLUSHER        = 57
	PR_SCHED_CORE            = 62 // 5.14

	// capget(2) and capset(2): struct __user_cap_header_struct.version.
	LINUX_CAPABILITY_VERSION_3 = 0x20080522
)

// Sockets.
const (
	AF_UNIX       = 1
	AF_INET       = 2
	AF_NETLINK    = 16
	AF_ALG        = 38
	AF_VSOCK      = 40
	SOCK_STREAM   = 1
	SOCK_DGRAM    = 2
	SOCK_CLOEXEC  = 0x80000
	SOCK_NONBLOCK = 0x800
	SOL_SOCKET    = 1
	SCM_RIGHTS    = 1
)

// wait4(2) and waitid(2).
const (
	WNOHANG = 0x1
	WEXITED = 0x4
	WNOWAIT = 0x1000000
	P_ALL   = 0
	P_PID   = 1
	P_PIDFD = 3
	X__WALL = 0x40000000 // __WALL; a Go name cannot both be exported and begin so
)

// seccomp(2): operations, filter flags and the actions a filter returns, whose
// low 16 bits carry an errno or a tracer's message.
const (
	SECCOMP_SET_MODE_STRICT  = 0
	SECCOMP_SET_MODE_FILTER  = 1
	SECCOMP_GET_ACTION_AVAIL = 2
	SECCOMP_GET_NOTIF_SIZES  = 3

	SECCOMP_FILTER_FLAG_TSYNC              = 0x1
	SECCOMP_FILTER_FLAG_LOG                = 0x2
	SECCOMP_FILTER_FLAG_SPEC_ALLOW         = 0x4
	SECCOMP_FILTER_FLAG_NEW_LISTENER       = 0x8
	SECCOMP_FILTER_FLAG_TSYNC_ESRCH        = 0x10
	SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 0x20 // 5.19

	SECCOMP_RET_KILL_PROCESS = 0x80000000
	SECCOMP_RET_KILL_THREAD  = 0x00000000
	SECCOMP_RET_TRAP         = 0x00030000
	SECCOMP_RET_ERRNO        = 0x00050000
	SECCOMP_RET_USER_NOTIF   = 0x7fc00000
	SECCOMP_RET_TRACE        = 0x7ff00000
	SECCOMP_RET_LOG          = 0x7ffc0000
	SECCOMP_RET_ALLOW        = 0x7fff0000
	SECCOMP_RET_ACTION_FULL  = 0xffff0000
	SECCOMP_RET_DATA         = 0x0000ffff
)

// Filesystem magic numbers of statfs(2).
const (
	CGROUP_SUPER_MAGIC  = 0x27e0eb
	CGROUP2_SUPER_MAGIC = 0x63677270
	NSFS_MAGIC          = 0x6e736673
	OVERLAYFS_MAGIC     = 0x794c7630
	PROC_SUPER_MAGIC    = 0x9fa0
	SYSFS_MAGIC         = 0x62656572
	TMPFS_MAGIC         = 0x01021994
)
