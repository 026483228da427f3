package plan

import (
	"fmt"

	"github.com/tare-oci/tare/runtime/linux"
	"github.com/tare-oci/tare/runtime/program"
)

// openTerminal makes a pseudoterminal on the container's own devpts. The other
// end is opened through the first, so no name is looked up between the two.
type openTerminal struct {
	Root          FD
	Master, Slave FD
}

func (o openTerminal) String() string {
	return fmt.Sprintf("open terminal = %v, %v", o.Master, o.Slave)
}

func (o openTerminal) lower(l *lowering) {
	l.openIn(l.fd(o.Root), "dev/pts/ptmx", linux.O_RDWR|linux.O_NOCTTY, 0).Into(l.fd(o.Master))
	// A file that those in a running container have put there could answer the calls that follow as it likes (FUSE has an
	// ioctl), and would be sent to the engine. This call asks no file system what it has opened.
	file, socket, zero := l.b.NewLabel(), l.report, program.Const(0)
	l.b.Call("sync_file_range", l.fd(o.Master), zero, zero, zero).Tolerate(linux.ESPIPE).OnZero(file)
	l.later(func() {
		l.b.Bind(file)
		l.b.Call("ioctl", socket, program.Const(linux.TIOCSPTLCK), l.b.Bytes(make([]byte, 8))) // ENOTTY
		l.jump(program.Exit)
	})
	l.b.Call("ioctl", l.fd(o.Master), program.Const(linux.TIOCSPTLCK), l.b.Bytes(make([]byte, 8)))
	l.b.Call("ioctl", l.fd(o.Master), program.Const(linux.TIOCGPTPEER),
		program.Const(linux.O_RDWR|linux.O_NOCTTY|linux.O_CLOEXEC)).Into(l.fd(o.Slave))
}

// resizeTerminal sets the terminal's size in characters.
type resizeTerminal struct {
	Terminal      FD
	Height, Width uint16
}

func (o resizeTerminal) String() string {
	return fmt.Sprintf("resize %v to %d x %d", o.Terminal, o.Width, o.Height)
}

func (o resizeTerminal) lower(l *lowering) {
	size := l.b.Bytes(le32(uint32(o.Height)|uint32(o.Width)<<16, 0))
	l.b.Call("ioctl", l.fd(o.Terminal), program.Const(linux.TIOCSWINSZ), size)
}

// plainLines makes a new terminal leave line ends as they are written. All other
// settings are those that the kernel gives a pseudoterminal: tty_std_termios and
// unix98_pty_init (drivers/tty).
type plainLines struct{ Terminal FD }

func (o plainLines) String() string { return fmt.Sprintf("plain line ends on %v", o.Terminal) }

func (o plainLines) lower(l *lowering) {
	const (
		input   = 0x500  // ICRNL|IXON
		output  = 0x1    // OPOST, and not ONLCR
		control = 0xbf   // B38400|CS8|CREAD
		local   = 0x8a3b // ISIG|ICANON|ECHO|ECHOE|ECHOK|ECHOCTL|ECHOKE|IEXTEN
		keys    = "\x03\x1c\x7f\x15\x04\x00\x01\x00\x11\x13\x1a\x00\x12\x0f\x17\x16\x00\x00\x00"
	)
	termios := append(le32(input, output, control, local), "\x00"+keys...)
	l.b.Call("ioctl", l.fd(o.Terminal), program.Const(linux.TCSETS), l.b.Bytes(termios))
}

// bindTerminal mounts the terminal on a file of the container: /dev/console.
type bindTerminal struct {
	Terminal FD
	To       FD
}

func (o bindTerminal) String() string { return fmt.Sprintf("bind %v to %v", o.Terminal, o.To) }

func (o bindTerminal) lower(l *lowering) {
	tree := l.b.Call("open_tree", l.fd(o.Terminal), l.str(""),
		program.Const(linux.OPEN_TREE_CLONE|linux.OPEN_TREE_CLOEXEC|linux.AT_EMPTY_PATH)).Result()
	l.b.Call("move_mount", tree, l.str(""), l.fd(o.To), l.str(""),
		program.Const(linux.MOVE_MOUNT_F_EMPTY_PATH|linux.MOVE_MOUNT_T_EMPTY_PATH))
	l.close(tree)
	l.close(l.fd(o.To))
}

// sendTerminal passes the terminal's master to whoever holds the console
// socket, in one message with the descriptor as its ancillary data.
type sendTerminal struct{ Socket, Master FD }

func (o sendTerminal) String() string { return fmt.Sprintf("send %v over %v", o.Master, o.Socket) }

func (o sendTerminal) lower(l *lowering) {
	const (
		name   = "/dev/ptmx"
		header = 16 // struct cmsghdr
	)
	iov := l.b.Words(l.str(name), program.Const(len(name)))
	// struct cmsghdr {len, level | type}, then the descriptor and padding.
	control := l.b.Words(program.Const(header+4), program.Const(uint64(linux.SOL_SOCKET)|linux.SCM_RIGHTS<<32), l.fd(o.Master))
	message := l.b.Words(program.Const(0), program.Const(0), iov, program.Const(1), control, program.Const(header+8), program.Const(0))
	l.b.Call("sendmsg", l.fd(o.Socket), message, program.Const(0))
	l.close(l.fd(o.Master))
	l.close(l.fd(o.Socket))
}

// useTerminal makes the terminal the controlling one and stdio.
type useTerminal struct {
	Terminal FD
	UID      uint32
}

func (o useTerminal) String() string {
	return fmt.Sprintf("use %v as stdio, owner %d", o.Terminal, o.UID)
}

func (o useTerminal) lower(l *lowering) {
	t := l.fd(o.Terminal)
	if o.UID != 0 {
		l.b.Call("fchown", t, program.Const(o.UID), program.Const(^uint32(0)))
	}
	l.b.Call("ioctl", t, program.Const(linux.TIOCSCTTY), program.Const(0))
	for i := range 3 {
		l.b.Call("dup3", t, program.Const(i), program.Const(0))
	}
	l.close(t)
}
