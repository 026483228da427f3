package criu

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The wire types of Protocol Buffers that rpc.proto uses.
const (
	wireVarint = 0
	wireBytes  = 2
)

// A message is an encoded message.
type message []byte

func (m *message) tag(field, wire int) {
	*m = binary.AppendUvarint(*m, uint64(field)<<3|uint64(wire))
}

// int appends an integer. A negative one is sign-extended, as rpc.proto's int32 are.
func (m *message) int(field int, v int64) {
	m.tag(field, wireVarint)
	*m = binary.AppendUvarint(*m, uint64(v))
}

func (m *message) bool(field int, v bool) {
	n := int64(0)
	if v {
		n = 1
	}
	m.int(field, n)
}

func (m *message) string(field int, s string) {
	m.tag(field, wireBytes)
	*m = append(binary.AppendUvarint(*m, uint64(len(s))), s...)
}

func (m *message) message(field int, sub message) { m.string(field, string(sub)) }

// optional appends a string that is not empty.
func (m *message) optional(field int, s string) {
	if s != "" {
		m.string(field, s)
	}
}

var errTruncated = errors.New("message ends in the middle of a field")

// fields calls yield for each field of a message: with the number of an integer,
// or with the content of a string or message.
func (m message) fields(yield func(field int, number uint64, content message) error) error {
	for len(m) > 0 {
		tag, n := binary.Uvarint(m)
		if n <= 0 {
			return errTruncated
		}
		m = m[n:]
		v, n := binary.Uvarint(m)
		if n <= 0 {
			return errTruncated
		}
		m = m[n:]
		var content message
		switch tag & 7 {
		case wireVarint:
		case wireBytes:
			if v > uint64(len(m)) {
				return errTruncated
			}
			content, m = m[:v], m[v:]
			v = 0
		default:
			return fmt.Errorf("field %d has wire type %d", tag>>3, tag&7)
		}
		if tag>>3 > 1<<29 {
			return fmt.Errorf("field number %d", tag>>3)
		}
		if err := yield(int(tag>>3), v, content); err != nil {
			return err
		}
	}
	return nil
}
