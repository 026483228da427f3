package netdev

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A message is one of rtnetlink: a header, a structure of the message's own, and
// attributes.
//
//	length 4  type 2  flags 2  sequence 4  port 4 │ body │ (length 2  type 2  value  padding to 4)…
type message struct {
	kind  uint16
	flags uint16
	seq   uint32
	body  []byte
}

const headerSize = unix.SizeofNlMsghdr

func align(n int) int { return (n + 3) &^ 3 }

// append appends the message to b.
func (m message) append(b []byte) []byte {
	e := binary.NativeEndian
	b = e.AppendUint32(b, uint32(headerSize+len(m.body)))
	b = e.AppendUint16(b, m.kind)
	b = e.AppendUint16(b, m.flags)
	b = e.AppendUint32(b, m.seq)
	b = e.AppendUint32(b, 0) // the kernel fills in who we are
	return append(b, m.body...)
}

var errMalformed = errors.New("malformed netlink message")

// parseMessages reads all messages of one datagram.
func parseMessages(b []byte) ([]message, error) {
	var all []message
	for len(b) > 0 {
		if len(b) < headerSize {
			return nil, errMalformed
		}
		e := binary.NativeEndian
		n := int(e.Uint32(b))
		if n < headerSize || n > len(b) {
			return nil, errMalformed
		}
		all = append(all, message{kind: e.Uint16(b[4:]), flags: e.Uint16(b[6:]), seq: e.Uint32(b[8:]), body: b[headerSize:n]})
		b = b[min(align(n), len(b)):]
	}
	return all, nil
}

// attribute appends an attribute to a message's body.
func attribute(b []byte, kind uint16, value []byte) []byte {
	e := binary.NativeEndian
	b = e.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = e.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func attribute32(b []byte, kind uint16, v uint32) []byte {
	return attribute(b, kind, binary.NativeEndian.AppendUint32(nil, v))
}

func attributeString(b []byte, kind uint16, s string) []byte {
	return attribute(b, kind, append([]byte(s), 0))
}

// attributes reads the attributes in b, the last of each kind.
func attributes(b []byte) (map[uint16][]byte, error) {
	all := map[uint16][]byte{}
	for len(b) >= unix.SizeofRtAttr {
		e := binary.NativeEndian
		n := int(e.Uint16(b))
		if n < unix.SizeofRtAttr || n > len(b) {
			return nil, errMalformed
		}
		const flags = unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER
		all[e.Uint16(b[2:])&^flags] = b[unix.SizeofRtAttr:n]
		b = b[min(align(n), len(b)):]
	}
	if len(b) > 0 {
		return nil, errMalformed
	}
	return all, nil
}

// A refusal is an error that the kernel answers, with what it says about it.
type refusal struct {
	errno unix.Errno
	text  string
}

func (r *refusal) Error() string {
	if r.text == "" {
		return r.errno.Error()
	}
	return r.errno.Error() + ": " + r.text
}

func (r *refusal) Unwrap() error { return r.errno }

// parseError reads the body of an NLMSG_ERROR: nil is an acknowledgement.
func parseError(m message) error {
	e := binary.NativeEndian
	if len(m.body) < 4+headerSize {
		return errMalformed
	}
	errno := -int32(e.Uint32(m.body))
	if errno == 0 {
		return nil
	}
	r := &refusal{errno: unix.Errno(errno)}
	// The request follows, whole unless NLM_F_CAPPED says that only its header
	// does, and then what the kernel has to add.
	skip := headerSize
	if m.flags&unix.NLM_F_CAPPED == 0 {
		skip = align(int(e.Uint32(m.body[4:])))
	}
	if m.flags&unix.NLM_F_ACK_TLVS != 0 && skip <= len(m.body)-4 {
		if extra, err := attributes(m.body[4+skip:]); err == nil {
			r.text = strings.TrimRight(string(extra[unix.NLMSGERR_ATTR_MSG]), "\x00")
		}
	}
	return r
}

// A link is an interface, as far as we have to know it.
type link struct {
	index int32
	flags uint32
	name  string
}

// parseLink reads the body of an RTM_NEWLINK: struct ifinfomsg.
func parseLink(body []byte) (link, error) {
	if len(body) < unix.SizeofIfInfomsg {
		return link{}, errMalformed
	}
	a, err := attributes(body[unix.SizeofIfInfomsg:])
	if err != nil {
		return link{}, err
	}
	e := binary.NativeEndian
	return link{index: int32(e.Uint32(body[4:])), flags: e.Uint32(body[8:]),
		name: strings.TrimRight(string(a[unix.IFLA_IFNAME]), "\x00")}, nil
}

// linkBody is a struct ifinfomsg that sets the flags in change.
func linkBody(index int32, flags, change uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	e := binary.NativeEndian
	e.PutUint32(b[4:], uint32(index))
	e.PutUint32(b[8:], flags)
	e.PutUint32(b[12:], change)
	return b
}

// An address is one of an interface's.
type address struct {
	family, prefix, scope uint8
	index                 int32
	flags                 uint32
	attributes            map[uint16][]byte
}

// parseAddress reads the body of an RTM_NEWADDR: struct ifaddrmsg.
func parseAddress(body []byte) (address, error) {
	if len(body) < unix.SizeofIfAddrmsg {
		return address{}, errMalformed
	}
	e := binary.NativeEndian
	a := address{family: body[0], prefix: body[1], flags: uint32(body[2]), scope: body[3], index: int32(e.Uint32(body[4:]))}
	var err error
	if a.attributes, err = attributes(body[unix.SizeofIfAddrmsg:]); err != nil {
		return address{}, err
	}
	if all := a.attributes[unix.IFA_FLAGS]; len(all) == 4 {
		a.flags = e.Uint32(all)
	}
	return a, nil
}

// given are the flags of an address that whoever adds it chooses; the others
// tell what has become of it.
const given = unix.IFA_F_NODAD | unix.IFA_F_OPTIMISTIC | unix.IFA_F_HOMEADDRESS | unix.IFA_F_MANAGETEMPADDR |
	unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_MCAUTOJOIN

const ifaProto = 11 // IFA_PROTO of Linux 5.18, linux/if_addr.h: who has set the address

// body is the message that adds the address to an interface of that name.
func (a address) body(index int32, oldName, newName string) []byte {
	b := []byte{a.family, a.prefix, uint8(a.flags & given), a.scope, 0, 0, 0, 0}
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	for _, kind := range []uint16{unix.IFA_LOCAL, unix.IFA_ADDRESS, unix.IFA_BROADCAST, unix.IFA_RT_PRIORITY, ifaProto} {
		if value, ok := a.attributes[kind]; ok {
			b = attribute(b, kind, value)
		}
	}
	// A label is the interface's name and something more: "eth0:1".
	if label := strings.TrimRight(string(a.attributes[unix.IFA_LABEL]), "\x00"); oldName == newName && label != "" {
		b = attributeString(b, unix.IFA_LABEL, label)
	}
	return attribute32(b, unix.IFA_FLAGS, a.flags&given)
}

// goesAlong says whether an address moves with its interface (config-linux.md):
// it is there for good, and means something beyond this host.
func (a address) goesAlong() bool {
	return a.flags&unix.IFA_F_PERMANENT != 0 && a.scope == unix.RT_SCOPE_UNIVERSE
}

// String is the address as people write it.
func (a address) String() string {
	ip := a.attributes[unix.IFA_LOCAL]
	if ip == nil {
		ip = a.attributes[unix.IFA_ADDRESS]
	}
	// As numbers between dots, or groups between colons: package net/netip, which
	// knows the short forms, is more than the runtime has use for.
	format, separator, size := "%d", ".", 1
	if len(ip) > 4 {
		format, separator, size = "%x", ":", 2
	}
	var groups []string
	for group := range slices.Chunk(ip, size) {
		n := 0
		for _, b := range group {
			n = n<<8 | int(b)
		}
		groups = append(groups, fmt.Sprintf(format, n))
	}
	return strings.Join(groups, separator) + fmt.Sprintf("/%d", a.prefix)
}
