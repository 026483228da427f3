package linux

// OpenFlagSet holds the open flags whose values differ between architectures.
type OpenFlagSet struct {
	Directory uint64 // O_DIRECTORY
	NoFollow  uint64 // O_NOFOLLOW
	Direct    uint64 // O_DIRECT
	LargeFile uint64 // O_LARGEFILE, as the kernel shows it in F_GETFL
	TmpFile   uint64 // O_TMPFILE, which contains O_DIRECTORY
}

// OpenFlags returns the flags of an architecture: those of
// include/uapi/asm-generic/fcntl.h, or arm's own, which arm64 kept
// (arch/arm64/include/uapi/asm/fcntl.h). With the wrong ones openat2 answers
// EINVAL at best, and follows symbolic links at worst.
func OpenFlags(arch Arch) OpenFlagSet {
	if arch == ArchAARCH64 || arch == ArchARM {
		return OpenFlagSet{Directory: 0x4000, NoFollow: 0x8000, Direct: 0x10000, LargeFile: 0x20000, TmpFile: 0x404000}
	}
	return OpenFlagSet{Directory: 0x10000, NoFollow: 0x20000, Direct: 0x4000, LargeFile: 0x8000, TmpFile: 0x410000}
}
