package lifecycle_test

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
)

// manager plays the service manager: it returns the path of its socket, and
// what it is told, in a channel that ends with the barrier.
func manager(t *testing.T, b *bundle) (path string, told <-chan string) {
	t.Helper()
	path = b.path("manager.sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	messages := make(chan string, 16)
	go func() {
		defer close(messages)
		defer unix.Close(fd)
		for {
			buf, control := make([]byte, 256), make([]byte, 256)
			n, size, _, _, err := unix.Recvmsg(fd, buf, control, unix.MSG_CMSG_CLOEXEC)
			if err != nil {
				return
			}
			messages <- strings.TrimSpace(string(buf[:n]))
			if size > 0 {
				parsed, err := unix.ParseSocketControlMessage(control[:size])
				if err != nil {
					t.Error(err)
				}
				for _, m := range parsed {
					fds, err := unix.ParseUnixRights(&m)
					if err != nil {
						t.Error(err)
					}
					for _, fd := range fds {
						unix.Close(fd)
					}
				}
				return
			}
		}
	}()
	return path, messages
}

func collect(messages <-chan string) (all []string) {
	for m := range messages {
		all = append(all, m)
	}
	return all
}

// say sends lines, after one of its own, to the datagram socket that /dev/log
// leads to.
func say(lines string) string { return `busybox logger "$(printf 'x\n` + lines + `\nx')"; ` }

// A service manager hears that the container is ready when it says so, whose
// process stands for it, and nothing else of what the container says.
func TestNotify(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	script := `test "$NOTIFY_SOCKET" = /run/notify/notify.sock || exit 9; ln -s "$NOTIFY_SOCKET" /dev/log || exit 8; ` +
		say(`MAINPID=1\nREADY=0`) + say(`X=1\nREADY=1\nMAINPID=2`) + "sleep 1000"
	for _, verb := range []string{"create", "run", "user namespace"} {
		t.Run(verb, func(t *testing.T) {
			b := newBundle(t, script)
			if verb == "user namespace" {
				b.newLog()
				b.userNamespace()
			}
			b.save()
			path, told := manager(t, b)
			o := b.options(nil)
			o.NotifySocket = path
			if verb == "run" {
				p, err := b.store.Run(t.Context(), o)
				if err != nil {
					t.Fatal(err)
				}
				if err := p.Notify(t.Context(), 12345); err != nil {
					t.Error(err)
				}
				if got := strings.Join(collect(told), " "); got != "READY=1 MAINPID=12345 BARRIER=1" {
					t.Errorf("told %q", got)
				}
				if err := p.Close(t.Context()); err != nil {
					t.Error(err)
				}
				return
			}
			c, err := b.store.Create(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if err := b.store.StartNotifying(t.Context(), b.id, path); err != nil {
				t.Error(err)
			}
			if got, want := strings.Join(collect(told), " "), "READY=1 MAINPID="+strconv.Itoa(c.PID)+" BARRIER=1"; got != want {
				t.Errorf("told %q, want %q", got, want)
			}
			if err := b.store.Delete(t.Context(), b.id, true); err != nil {
				t.Error(err)
			}
		})
	}
}

// A container that ends before it is ready, or knows of no socket, holds nobody up.
func TestNotifyEnds(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "exit 3")
	b.save()
	o := b.options(nil)
	o.NotifySocket = b.path("nobody.sock")
	if _, err := b.store.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if err := b.store.StartNotifying(t.Context(), b.id, o.NotifySocket); err != nil {
		t.Error(err)
	}
	if err := b.store.Delete(t.Context(), b.id, true); err != nil {
		t.Error(err)
	}

	b = newBundle(t, "sleep 1000")
	b.create()
	if err := b.store.StartNotifying(t.Context(), b.id, b.path("nobody.sock")); err != nil {
		t.Error(err)
	}

	b = newBundle(t, "sleep 1000")
	b.save()
	o = b.options(nil)
	o.NotifySocket = b.path("nobody.sock")
	p, err := b.store.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := p.Notify(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a container that is never ready: %v", err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// The process's pidfd is sent to who asks for it.
func TestPIDFDSocket(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "sleep 1000")
	b.save()
	path := b.path("pidfd.sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 1)); err != nil {
		t.Fatal(err)
	}
	o := b.options(nil)
	o.PIDFDSocket = path
	c, err := b.store.Create(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	conn, _, err := unix.Accept(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(conn)
	buf, control := make([]byte, 64), make([]byte, 64)
	n, size, _, _, err := unix.Recvmsg(conn, buf, control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:size])
	if err != nil || len(messages) != 1 || string(buf[:n]) != "standard" {
		t.Fatalf("received %q, %v, %v", buf[:n], messages, err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("received %v, %v", fds, err)
	}
	defer unix.Close(fds[0])
	info, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fds[0]))
	if err != nil || !strings.Contains(string(info), "Pid:\t"+strconv.Itoa(c.PID)+"\n") {
		t.Errorf("pidfd of another process than %d: %s, %v", c.PID, info, err)
	}
	if err := b.store.Delete(t.Context(), b.id, true); err != nil {
		t.Error(err)
	}
	o.PIDFDSocket = b.path("nobody.sock")
	_, err = b.store.Create(t.Context(), o)
	wantError(t, "create", err, "pidfd socket: connect")
	b.wantStatus("gone")
}

// Processes that a container without a pid namespace leaves behind are reaped
// where they are ours.
func TestSubreaper(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	// The orphan's parent ends at once, and a while later the orphan itself.
	b := newBundle(t, "(sh -c 'echo $$; exec sleep 0.1' &); sleep 0.5; exit 7")
	b.without(specs.PIDNamespace)
	b.Mounts[0] = specs.Mount{Type: "bind", Source: "/proc", Destination: "/proc", Options: []string{"rbind"}}
	b.save()
	w, text := output(t)
	o := b.options(w)
	o.Subreaper = true
	p, err := b.store.Run(t.Context(), o)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if status, err := p.Wait(); status != 7 || err != nil {
		t.Errorf("exit status %d, %v", status, err)
	}
	orphan := strings.TrimSpace(text())
	if _, err := os.Stat("/proc/" + orphan); orphan == "" || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("orphan %q is still there: %v", orphan, err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
