package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxFileBytes bounds what is read of one control file. A million pids are 7 MB.
	maxFileBytes = 8 << 20
	// maxNested bounds how deep nested cgroups are followed; the kernel's own limit on a path is near it.
	maxNested = 512
	// destroyTimeout bounds the wait for exiting processes in Destroy.
	destroyTimeout = 5 * time.Second
)

// writeFile writes values to a control file, each in one write, as the kernel wants it.
func writeFile(path string, values ...string) error {
	fd, err := open(path, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, value := range values {
		for {
			_, err := unix.Write(fd, []byte(value))
			if err == nil {
				break
			}
			if err != unix.EINTR {
				return &os.PathError{Op: "write " + strconv.Quote(value) + " to", Path: path, Err: err}
			}
		}
	}
	return nil
}

// readFile reads a control file.
func readFile(path string) (string, error) {
	fd, err := open(path, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	buf := make([]byte, 0, 512)
	for {
		if len(buf) == cap(buf) {
			if len(buf) >= maxFileBytes {
				return "", fmt.Errorf("read %s: longer than %d bytes", path, maxFileBytes)
			}
			buf = slices.Grow(buf, len(buf))
		}
		n, err := unix.Read(fd, buf[len(buf):cap(buf)])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return "", &os.PathError{Op: "read", Path: path, Err: err}
		case n == 0:
			return string(buf), nil
		default:
			buf = buf[:len(buf)+n]
		}
	}
}

// open goes round package os, which would enter the file into the runtime's poller.
func open(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
		if err == nil {
			return fd, nil
		}
		if err != unix.EINTR {
			return -1, &os.PathError{Op: "open", Path: path, Err: err}
		}
	}
}

func openFile(path string, flags int) (*os.File, error) {
	fd, err := open(path, flags)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// mkdirAll makes dir, which is below root, and what is missing above it, and returns what it made, outermost first. It tries the
// whole path first: usually only the last element is missing.
func mkdirAll(root, dir string) (made []string, err error) {
	err = unix.Mkdir(dir, 0o755)
	if err == unix.ENOENT {
		parent := dir[:strings.LastIndexByte(dir, '/')]
		if !below(parent, root) {
			return nil, &os.PathError{Op: "mkdir", Path: dir, Err: err}
		}
		if made, err = mkdirAll(root, parent); err != nil {
			return made, err
		}
		err = unix.Mkdir(dir, 0o755)
	}
	switch err {
	case nil:
		return append(made, dir), nil
	case unix.EEXIST:
		return made, nil
	}
	return made, &os.PathError{Op: "mkdir", Path: dir, Err: err}
}

// destroy removes a container's cgroups. Usually nothing is in them any more, and that takes one call each; else everything ends first.
func destroy(ctx context.Context, m Manager, dirs []string) error {
	busy := dirs[:0]
	for _, dir := range dirs {
		if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT {
			busy = append(busy, dir)
		}
	}
	if len(busy) == 0 {
		return nil
	}
	errs := []error{m.Kill(ctx, unix.SIGKILL)}
	deadline := time.Now().Add(destroyTimeout)
	for _, dir := range busy {
		errs = append(errs, wrapped(removeTree(ctx, dir, deadline)))
	}
	return errors.Join(errs...)
}

// removeTree removes a cgroup with those nested in it. Until deadline it waits for processes that are still exiting: the kernel
// reports EBUSY as long as one is there.
func removeTree(ctx context.Context, dir string, deadline time.Time) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := unix.Rmdir(dir)
		if err == nil || err == unix.ENOENT {
			return nil
		}
		if err != unix.EBUSY && err != unix.EINTR {
			return &os.PathError{Op: "rmdir", Path: dir, Err: err}
		}
		nested, err := walk(dir)
		if err != nil {
			return err
		}
		for _, sub := range slices.Backward(nested[1:]) {
			_ = unix.Rmdir(sub) // the loop tries again, and the outermost tells what is wrong
		}
		if unix.Rmdir(dir) == nil {
			return nil
		}
		if time.Now().After(deadline) {
			pids, _ := allPids(dir)
			return fmt.Errorf("rmdir %s: %w: %v", dir, ErrNotEmpty, firstFew(pids))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("rmdir %s: %w", dir, ctx.Err())
		case <-time.After(wait):
		}
	}
}

func firstFew(pids []int) []int { return pids[:min(len(pids), 10)] }

// walk returns dir and all cgroups nested in it, outer before inner. One that vanishes meanwhile is no error.
func walk(dir string) ([]string, error) {
	dirs := []string{dir}
	base := strings.Count(dir, "/")
	for i := 0; i < len(dirs); i++ {
		entries, err := os.ReadDir(dirs[i])
		if err != nil && !gone(err) {
			return nil, err
		}
		if strings.Count(dirs[i], "/")-base > maxNested {
			return nil, fmt.Errorf("%s: cgroups nested more than %d deep", dir, maxNested)
		}
		for _, e := range entries {
			if e.IsDir() {
				dirs = append(dirs, dirs[i]+"/"+e.Name())
			}
		}
	}
	return dirs, nil
}

// allPids returns the processes of a cgroup and those nested in it.
func allPids(dir string) ([]int, error) {
	dirs, err := walk(dir)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, d := range dirs {
		p, err := pidsIn(d)
		if err != nil {
			return nil, err
		}
		pids = append(pids, p...)
	}
	return pids, nil
}

// pidsIn returns the processes of one cgroup.
func pidsIn(dir string) ([]int, error) {
	data, err := readFile(dir + "/cgroup.procs")
	if gone(err) {
		return nil, nil
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		// A threaded cgroup of v2: its processes belong to the nearest domain above, which the walk also reads.
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for line := range strings.Lines(data) {
		pid, err := strconv.Atoi(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, fmt.Errorf("%s/cgroup.procs: %w", dir, err)
		}
		if pid > 0 { // 0: a process outside our pid namespace
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// signalAll signals the processes of a cgroup and those nested in it, and returns how many there were.
func signalAll(dir string, sig unix.Signal) (int, error) {
	pids, err := allPids(dir)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, pid := range pids {
		if err := unix.Kill(pid, sig); err != nil && err != unix.ESRCH {
			errs = append(errs, fmt.Errorf("kill process %d in %s: %w", pid, dir, err))
		}
	}
	return len(pids), errors.Join(errs...)
}

// counter returns the number behind key in a flat-keyed control file.
func counter(path, key string) (uint64, error) {
	data, err := readFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(data) {
		if k, v, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " "); ok && k == key {
			return strconv.ParseUint(v, 10, 64)
		}
	}
	return 0, nil
}
