package dbus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Message types.
const (
	typeCall   = byte(1)
	typeReturn = byte(2)
	typeError  = byte(3)
	typeSignal = byte(4)
)

// Codes of header fields.
const (
	fieldPath = byte(1 + iota)
	fieldInterface
	fieldMember
	fieldErrorName
	fieldReplySerial
	fieldDestination
	fieldSender
	fieldSignature
)

// An Error is the answer to a call that failed.
type Error struct {
	Name    string // "org.freedesktop.systemd1.NoSuchUnit"
	Message string
}

func (e *Error) Error() string {
	if e.Message == "" {
		return e.Name
	}
	return e.Message
}

// A Signal is what somebody tells everybody.
type Signal struct {
	Sender string // the unique name of who is connected to the bus; "" where there is no bus between
	Member string
	Args   []any
}

// A Conn is a connection to a bus, or to a program that speaks like one. It is for one goroutine.
type Conn struct {
	fd       int
	deadline time.Time
	serial   uint32
	unread   []byte
	signals  []Signal
}

// Dial connects to the first address that answers: "unix:path=/run/dbus/system_bus_socket". All that is done with the connection has to be
// done within timeout.
func Dial(addresses string, timeout time.Duration) (*Conn, error) {
	paths, err := parseAddresses(addresses)
	if err != nil {
		return nil, fmt.Errorf("dbus: address %q: %w", addresses, err)
	}
	var errs []error
	for _, path := range paths {
		c, err := dial(path, timeout)
		if err == nil {
			return c, nil
		}
		errs = append(errs, fmt.Errorf("dbus: connect to %s: %w", path, err))
	}
	return nil, errors.Join(errs...)
}

func dial(path string, timeout time.Duration) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	c := &Conn{fd: fd, deadline: time.Now().Add(timeout)}
	if err = unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err == nil {
		err = c.authenticate()
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Close ends the connection.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// parseAddresses returns the paths of the unix sockets in a list of addresses (D-Bus Specification, "Server Addresses"). A path that begins
// with @ is abstract.
func parseAddresses(addresses string) (paths []string, err error) {
	for address := range strings.SplitSeq(addresses, ";") {
		options, ok := strings.CutPrefix(address, "unix:")
		if !ok {
			continue
		}
		for option := range strings.SplitSeq(options, ",") {
			key, value, _ := strings.Cut(option, "=")
			if value, err = unescape(value); err != nil {
				return nil, err
			}
			switch {
			case value == "" || strings.Contains(value, "\x00"):
			case key == "path":
				paths = append(paths, value)
			case key == "abstract":
				paths = append(paths, "@"+value)
			}
		}
	}
	if len(paths) == 0 {
		return nil, errors.New("names no unix socket")
	}
	return paths, nil
}

// unescape undoes %20.
func unescape(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		n, err := strconv.ParseUint(s[i+1:min(i+3, len(s))], 16, 8)
		if err != nil || i+3 > len(s) {
			return "", fmt.Errorf("bad escape in %q", s)
		}
		b.WriteByte(byte(n))
		i += 2
	}
	return b.String(), nil
}

// authenticate says all of the handshake at once. Without an identity the other side takes that of the socket, which holds across user
// namespaces, where our own idea of our number is not theirs.
func (c *Conn) authenticate() error {
	if err := c.write([]byte("\x00AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")); err != nil {
		return err
	}
	for _, want := range [...]string{"DATA", "OK "} {
		line, err := c.readLine()
		if err != nil {
			return err
		}
		if !strings.HasPrefix(line, want) {
			return fmt.Errorf("authenticate: %q: %w", line, unix.EACCES)
		}
	}
	return nil
}

func (c *Conn) readLine() (string, error) {
	for {
		if line, rest, ok := strings.Cut(string(c.unread), "\r\n"); ok {
			c.unread = []byte(rest)
			return line, nil
		}
		if len(c.unread) > 4096 {
			return "", errors.New("authenticate: the answer is too long")
		}
		if err := c.more(); err != nil {
			return "", err
		}
	}
}

// await waits until the socket can be read or written.
func (c *Conn) await(events int16) error {
	for {
		left := time.Until(c.deadline)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(c.fd), Events: events}}, int(left.Milliseconds())+1)
		if err != nil && err != unix.EINTR {
			return err
		}
		if n > 0 {
			return nil
		}
	}
}

// more reads what there is.
func (c *Conn) more() error {
	buf := make([]byte, 4096)
	for {
		if err := c.await(unix.POLLIN); err != nil {
			return err
		}
		n, err := unix.Read(c.fd, buf)
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		c.unread = append(c.unread, buf[:n]...)
		return nil
	}
}

func (c *Conn) write(b []byte) error {
	for len(b) > 0 {
		if err := c.await(unix.POLLOUT); err != nil {
			return err
		}
		n, err := unix.SendmsgN(c.fd, b, nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// A Method is what is called, and where.
type Method struct {
	Destination, Path, Interface, Member string
}

// Call calls a method and returns its results. Signals that come meanwhile are kept for Wait.
func (c *Conn) Call(m Method, sig string, args ...any) ([]any, error) {
	c.serial++
	b, err := appendCall(nil, c.serial, m, sig, args)
	if err == nil {
		err = c.write(b)
	}
	for err == nil {
		var got message
		if got, err = c.receive(); err != nil || got.reply != c.serial || got.kind != typeReturn && got.kind != typeError {
			continue // a signal of anybody on the bus can name our call, too
		}
		if got.kind == typeError {
			e := &Error{Name: got.errorName}
			if len(got.args) > 0 {
				e.Message, _ = got.args[0].(string)
			}
			return nil, fmt.Errorf("dbus: %s: %w", m.Member, e)
		}
		return got.args, nil
	}
	return nil, fmt.Errorf("dbus: %s: %w", m.Member, err)
}

// Wait returns the next signal.
func (c *Conn) Wait() (Signal, error) {
	for len(c.signals) == 0 {
		if _, err := c.receive(); err != nil {
			return Signal{}, fmt.Errorf("dbus: wait for a signal: %w", err)
		}
	}
	s := c.signals[0]
	c.signals = c.signals[1:]
	return s, nil
}

func appendCall(b []byte, serial uint32, m Method, sig string, args []any) ([]byte, error) {
	body, err := appendValues(nil, sig, args...)
	if err != nil {
		return nil, err
	}
	fields := []any{}
	for _, f := range []struct {
		code  byte
		sig   string
		value string
	}{{fieldPath, "o", m.Path}, {fieldInterface, "s", m.Interface}, {fieldMember, "s", m.Member}, {fieldDestination, "s", m.Destination}, {fieldSignature, "g", sig}} {
		if f.value != "" {
			fields = append(fields, []any{f.code, Variant{f.sig, f.value}})
		}
	}
	b, err = appendValues(b, "yyyyuua(yv)", byte('l'), typeCall, byte(0), byte(1), uint32(len(body)), serial, fields)
	return append(pad(b, 8), body...), err
}

// message is one that has come.
type message struct {
	kind              byte
	reply             uint32
	sender            string
	member, errorName string
	args              []any
}

// receive reads one message, and keeps it if it is a signal.
func (c *Conn) receive() (message, error) {
	for {
		n, err := messageLength(c.unread)
		if err != nil {
			return message{}, err
		}
		if n > 0 && n <= len(c.unread) {
			m, err := parseMessage(c.unread[:n])
			c.unread = c.unread[n:]
			if err == nil && m.kind == typeSignal {
				c.signals = append(c.signals, Signal{m.sender, m.member, m.args})
			}
			return m, err
		}
		if err := c.more(); err != nil {
			return message{}, err
		}
	}
}

// messageLength is the length of the message that b begins with, or 0 where that is not known yet.
func messageLength(b []byte) (int, error) {
	if len(b) < 16 {
		return 0, nil
	}
	if b[0] != 'l' || b[3] != 1 {
		return 0, fmt.Errorf("a message of byte order %q, version %d", b[0], b[3])
	}
	body, fields := uint64(binary.LittleEndian.Uint32(b[4:])), uint64(binary.LittleEndian.Uint32(b[12:]))
	n := (16+fields+7)/8*8 + body
	if n > maxMessage {
		return 0, fmt.Errorf("a message of %d bytes", n)
	}
	return int(n), nil
}

// parseMessage reads a whole message.
func parseMessage(b []byte) (m message, err error) {
	r := &reader{b: b}
	head := r.values("yyyyuua(yv)", 0)
	if r.err != nil {
		return message{}, r.err
	}
	m.kind = head[1].(byte)
	sig := ""
	for _, f := range head[6].([]any) {
		field := f.([]any)
		value := field[1].(Variant).Value
		switch field[0].(byte) {
		case fieldMember:
			m.member, _ = value.(string)
		case fieldSender:
			m.sender, _ = value.(string)
		case fieldErrorName:
			m.errorName, _ = value.(string)
		case fieldReplySerial:
			m.reply, _ = value.(uint32)
		case fieldSignature:
			sig, _ = value.(string)
		}
	}
	r.take(8, 0)
	m.args = r.values(sig, 0)
	return m, r.err
}
