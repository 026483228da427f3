package cgroup

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// progLoad is the part of union bpf_attr for BPF_PROG_LOAD that we fill.
type progLoad struct {
	progType, insnCount uint32
	insns, license      uint64
	logLevel, logSize   uint32
	logBuf              uint64
	kernVersion         uint32
	progFlags           uint32
	name                [unix.BPF_OBJ_NAME_LEN]byte
}

// progAttach is that for BPF_PROG_ATTACH.
type progAttach struct {
	target, prog, attachType, flags uint32
}

func bpf(cmd uintptr, attr unsafe.Pointer, size uintptr) (int, error) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(attr), size)
		if errno == 0 {
			return int(n), nil
		}
		if errno != unix.EINTR && errno != unix.EAGAIN { // EAGAIN: a signal came while the kernel verified
			return -1, errno
		}
	}
}

// bpfLoadDevice loads a device program and returns its descriptor, which is close-on-exec.
func bpfLoadDevice(code []byte) (int, error) {
	license := []byte("Apache-2.0\x00") // the program calls no helper that asks for the GPL
	attr := progLoad{
		progType:  unix.BPF_PROG_TYPE_CGROUP_DEVICE,
		insnCount: uint32(len(code) / 8),
		insns:     uint64(uintptr(unsafe.Pointer(&code[0]))),
		license:   uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	copy(attr.name[:], "tare_devices")
	fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(code)
	runtime.KeepAlive(license)
	return fd, err
}

func bpfAttachDevice(dirFD, progFD int) error {
	attr := progAttach{
		target: uint32(dirFD), prog: uint32(progFD),
		attachType: unix.BPF_CGROUP_DEVICE, flags: unix.BPF_F_ALLOW_MULTI,
	}
	_, err := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}
