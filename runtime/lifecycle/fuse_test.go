package lifecycle_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
)

// A container may have a FUSE file system, and with it files that answer ioctl as
// they like. One in the place of the terminal would be sent to the engine as if it were
// one. The kernel of the virtual machine has no FUSE, so this is not named like what
// is tested there.
func TestFileForTerminal(t *testing.T) {
	if !testenv.PrivateMounts(t) {
		return
	}
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	b := running(t, func(b *bundle) {
		b.mkdir("pts")
		options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", dev)
		if err := unix.Mount("fuse", b.path("pts"), "fuse", 0, options); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(b.path("pts"), unix.MNT_DETACH) })
		go fakeTerminal(dev)
		// Nobody waits for its answers for ever, whatever goes wrong.
		time.AfterFunc(20*time.Second, func() { _ = unix.Unmount(b.path("pts"), unix.MNT_FORCE) })
		b.mount("bind", b.path("pts"), "/dev/pts", "bind")
	})
	socket := filepath.Join(t.TempDir(), "console")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	o := b.execOptions(nil, func(p *specs.Process) { p.Terminal = true }, "echo written")
	o.ConsoleSocket = socket
	p, err := b.store.Exec(t.Context(), o)
	if err == nil {
		_, _ = p.Wait()
		p.Close(t.Context())
	}
	if err == nil || !strings.Contains(err.Error(), "inappropriate ioctl for device (process.terminal)") {
		t.Errorf("exec with a terminal that is a file: %v", err)
	}
	conn, err := listener.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if n, rights, _, _, _ := conn.ReadMsgUnix(make([]byte, 64), make([]byte, 64)); n+rights > 0 {
		t.Error("the engine was sent a file of the container's for a terminal")
	}
}

// fakeTerminal serves a file system with one file, by any name, whose ioctl
// returns 0 for the lock of a terminal and 3 for its other end.
func fakeTerminal(dev int) {
	const (
		lookup, getattr, open, initialize, opendir, ioctl = 1, 3, 14, 26, 27, 39
		forget, batchForget                               = 2, 42
		root                                              = 1
	)
	le := binary.LittleEndian
	attr := func(node uint64) []byte {
		a := le.AppendUint64(nil, node)
		a = append(a, make([]byte, 52)...) // size, blocks, times
		mode := uint32(unix.S_IFREG | 0o666)
		if node == root {
			mode = unix.S_IFDIR | 0o755
		}
		return append(le.AppendUint32(le.AppendUint32(a, mode), 1), make([]byte, 20)...)
	}
	buf := make([]byte, 1<<20)
	for {
		n, err := unix.Read(dev, buf)
		if err != nil {
			return
		}
		opcode, unique, node, body := le.Uint32(buf[4:]), buf[8:16], le.Uint64(buf[16:]), buf[40:n]
		var out []byte
		errno := int32(0)
		switch opcode {
		case forget, batchForget:
			continue
		case initialize:
			out = le.AppendUint32(le.AppendUint32(nil, 7), 31)
			out = append(append(out, body[8:12]...), make([]byte, 52)...)
			le.PutUint32(out[20:], 1<<16) // max_write
		case lookup:
			out = append(append(le.AppendUint64(nil, 2), make([]byte, 32)...), attr(2)...)
		case getattr:
			out = append(make([]byte, 16), attr(node)...)
		case open, opendir:
			out = make([]byte, 16)
		case ioctl:
			out = make([]byte, 16)
			if le.Uint32(body[12:]) == unix.TIOCGPTPEER {
				out[0] = 3
			}
		default:
			errno = -int32(unix.ENOSYS)
		}
		reply := le.AppendUint32(le.AppendUint32(nil, uint32(16+len(out))), uint32(errno))
		if _, err := unix.Write(dev, append(append(reply, unique...), out...)); err != nil {
			return
		}
	}
}
