package cgroup

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// programName is how our programs are known among others'.
const programName = "tare_devices"

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
	copy(attr.name[:], programName)
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

// progQuery is that for BPF_PROG_QUERY.
type progQuery struct {
	target, attachType, queryFlags, attachFlags uint32
	ids                                         uint64
	count                                       uint32
}

// bpfDevicePrograms returns the numbers of the device programs that are attached to a cgroup itself.
func bpfDevicePrograms(dirFD int) ([]uint32, error) {
	ids := make([]uint32, 64) // as many as the kernel takes
	attr := progQuery{target: uint32(dirFD), attachType: unix.BPF_CGROUP_DEVICE, ids: uint64(uintptr(unsafe.Pointer(&ids[0]))), count: uint32(len(ids))}
	_, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(ids)
	if err != nil {
		return nil, err
	}
	return ids[:attr.count], nil
}

// bpfOpen opens a program by its number.
func bpfOpen(id uint32) (int, error) {
	attr := struct{ id, next, flags uint32 }{id: id}
	return bpf(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

func bpfDetachDevice(dirFD, progFD int) error {
	attr := progAttach{target: uint32(dirFD), prog: uint32(progFD), attachType: unix.BPF_CGROUP_DEVICE}
	_, err := bpf(unix.BPF_PROG_DETACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

// bpfName returns the name of a program.
func bpfName(fd int) (string, error) {
	const nameAt = 64 // in struct bpf_prog_info
	var info [nameAt + unix.BPF_OBJ_NAME_LEN]byte
	attr := struct {
		fd, length uint32
		info       uint64
	}{uint32(fd), uint32(len(info)), uint64(uintptr(unsafe.Pointer(&info[0])))}
	_, err := bpf(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(&info)
	return unix.ByteSliceToString(info[nameAt:]), err
}
