package netdev

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// A socket speaks rtnetlink with one network namespace.
type socket struct {
	fd  int
	seq uint32
}

// dial opens a socket in the caller's namespace.
func dial() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	// The kernel then says more of an error, and lists what was asked for only
	// (Linux 4.12 and 4.20).
	for _, option := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_GET_STRICT_CHK} {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, option, 1); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("netlink socket: %w", err)
		}
	}
	return &socket{fd: fd}, nil
}

// dialIn opens a socket in another namespace: this thread, which the caller has
// locked, goes there and comes back home.
func dialIn(ns, home *os.File) (*socket, error) {
	join := func(ns *os.File) error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("join network namespace: %w", err)
		}
		return nil
	}
	if err := join(ns); err != nil {
		return nil, err
	}
	s, err := dial()
	if herr := join(home); herr != nil {
		// Nobody else may get a thread that is where it should not be.
		runtime.LockOSThread()
		s.close()
		return nil, errors.Join(err, herr)
	}
	return s, err
}

func (s *socket) close() {
	if s != nil {
		unix.Close(s.fd)
	}
}

const (
	maxAnswer  = 1 << 20 // bytes of a datagram
	maxRetries = 10      // of a list that changed while it was read
)

// do sends a request and returns what is answered before the acknowledgement.
func (s *socket) do(kind, flags uint16, body []byte) ([]message, error) {
	for range maxRetries {
		answers, interrupted, err := s.once(kind, flags, body)
		if err != nil || !interrupted {
			return answers, err
		}
	}
	return nil, errors.New("netlink: the list keeps changing")
}

func (s *socket) once(kind, flags uint16, body []byte) (answers []message, interrupted bool, err error) {
	s.seq++
	m := message{kind: kind, flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK | flags, seq: s.seq, body: body}
	if err := unix.Sendto(s.fd, m.append(nil), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, false, fmt.Errorf("netlink: send: %w", err)
	}
	for {
		datagram, err := s.receive()
		if err != nil {
			return nil, false, fmt.Errorf("netlink: receive: %w", err)
		}
		messages, err := parseMessages(datagram)
		if err != nil {
			return nil, false, err
		}
		for _, m := range messages {
			interrupted = interrupted || m.flags&unix.NLM_F_DUMP_INTR != 0
			switch {
			case m.seq != s.seq: // of an earlier request that we gave up
			case m.kind == unix.NLMSG_ERROR:
				return answers, interrupted, parseError(m)
			case m.kind == unix.NLMSG_DONE:
				return answers, interrupted, nil
			default:
				answers = append(answers, m)
			}
		}
	}
}

// receive reads one datagram of whatever size it has.
func (s *socket) receive() ([]byte, error) {
	for size := 0; ; {
		buf := make([]byte, size)
		flags := unix.MSG_TRUNC
		if size == 0 {
			flags |= unix.MSG_PEEK
		}
		n, _, err := unix.Recvfrom(s.fd, buf, flags)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, err
		case n > maxAnswer:
			return nil, fmt.Errorf("an answer of %d bytes", n)
		case size > 0:
			return buf[:min(n, size)], nil
		default:
			size = max(n, headerSize)
		}
	}
}

// link finds an interface by its name.
func (s *socket) link(name string) (link, error) {
	answers, err := s.do(unix.RTM_GETLINK, 0, attributeString(linkBody(0, 0, 0), unix.IFLA_IFNAME, name))
	if err != nil {
		return link{}, err
	}
	if len(answers) != 1 {
		return link{}, errMalformed
	}
	return parseLink(answers[0].body)
}

// has says whether there is an interface of that number.
func (s *socket) has(index int32) bool {
	_, err := s.do(unix.RTM_GETLINK, 0, linkBody(index, 0, 0))
	return err == nil
}

// indexes are the numbers of all interfaces.
func (s *socket) indexes() (map[int32]bool, error) {
	answers, err := s.do(unix.RTM_GETLINK, unix.NLM_F_DUMP, linkBody(0, 0, 0))
	if err != nil {
		return nil, err
	}
	all := map[int32]bool{}
	for _, m := range answers {
		l, err := parseLink(m.body)
		if err != nil {
			return nil, err
		}
		all[l.index] = true
	}
	return all, nil
}

// addresses are those of an interface that move with it.
func (s *socket) addresses(index int32) ([]address, error) {
	request := make([]byte, unix.SizeofIfAddrmsg)
	binary.NativeEndian.PutUint32(request[4:], uint32(index))
	answers, err := s.do(unix.RTM_GETADDR, unix.NLM_F_DUMP, request)
	if err != nil {
		return nil, err
	}
	var all []address
	for _, m := range answers {
		a, err := parseAddress(m.body)
		if err != nil {
			return nil, err
		}
		if a.index == index && a.goesAlong() {
			all = append(all, a)
		}
	}
	return all, nil
}
