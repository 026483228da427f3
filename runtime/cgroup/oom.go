package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// isUnreadable reports whether an error means that a file tells nothing here: pressure files where the kernel was started without them.
func isUnreadable(err error) bool { return errors.Is(err, unix.EOPNOTSUPP) }

// OOMs asks for an event whenever a process is out of memory (cgroup-v1/memory.rst, 10). The kernel sends one when the cgroup is removed, too.
func (m *v1) OOMs(ctx context.Context, f func()) error {
	dir, err := m.dir("memory")
	if err != nil {
		return wrapped(err)
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("cgroup: eventfd: %w", err)
	}
	events := os.NewFile(uintptr(fd), "eventfd")
	defer events.Close()
	control, err := openFile(dir+"/memory.oom_control", unix.O_RDONLY)
	if err != nil {
		return wrapped(err)
	}
	defer control.Close()
	if err := writeFile(dir+"/cgroup.event_control", fmt.Sprintf("%d %d", fd, control.Fd())); err != nil {
		return wrapped(err)
	}
	return await(ctx, events, func() bool {
		if _, err := os.Lstat(dir); err != nil {
			return false
		}
		f()
		return true
	})
}

// await calls more whenever something can be read, until it says no.
func await(ctx context.Context, events *os.File, more func() bool) error {
	stop := context.AfterFunc(ctx, func() { events.Close() })
	defer stop()
	buf := make([]byte, 4096)
	for {
		_, err := events.Read(buf)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("cgroup: wait for events: %w", err)
		}
		if !more() {
			return nil
		}
	}
}

// OOMs watches the files of events, which the kernel says are modified when something has happened (cgroup-v2.rst, "memory.events").
func (m *v2) OOMs(ctx context.Context, f func()) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("cgroup: inotify: %w", err)
	}
	events := os.NewFile(uintptr(fd), "inotify")
	defer events.Close()
	for _, name := range [...]string{"/memory.events", "/cgroup.events"} {
		if _, err := unix.InotifyAddWatch(fd, m.dir+name, unix.IN_MODIFY); err != nil {
			return wrapped(&os.PathError{Op: "watch", Path: m.dir + name, Err: err})
		}
	}
	seen, err := counter(m.dir+"/memory.events", "oom_kill")
	if err != nil {
		return wrapped(err)
	}
	// Which file it was does not matter: the counters tell all.
	return await(ctx, events, func() bool {
		for now, err := counter(m.dir+"/memory.events", "oom_kill"); err == nil && seen < now; seen++ {
			f()
		}
		populated, err := counter(m.dir+"/cgroup.events", "populated")
		return err == nil && populated != 0
	})
}
