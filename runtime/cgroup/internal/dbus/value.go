package dbus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
)

const (
	maxMessage = 1 << 20 // systemd's answers are some hundred bytes
	maxDepth   = 16
)

// A Variant is a value with its type, one complete signature.
type Variant struct {
	Signature string
	Value     any
}

var errSignature = errors.New("not one complete type")

// next cuts the first complete type off a signature.
func next(sig string) (first, rest string, err error) {
	n, err := typeLength(sig, 0)
	if err != nil {
		return "", "", fmt.Errorf("signature %q: %w", sig, err)
	}
	return sig[:n], sig[n:], nil
}

func typeLength(sig string, depth int) (int, error) {
	if sig == "" || depth > maxDepth {
		return 0, errSignature
	}
	switch sig[0] {
	case 'a':
		n, err := typeLength(sig[1:], depth+1)
		return n + 1, err
	case '(', '{':
		end := map[byte]byte{'(': ')', '{': '}'}[sig[0]]
		for n := 1; ; {
			if n < len(sig) && sig[n] == end && n > 1 {
				return n + 1, nil
			}
			m, err := typeLength(sig[min(n, len(sig)):], depth+1)
			if err != nil {
				return 0, err
			}
			n += m
		}
	}
	if strings.IndexByte("ybnqiuxtdsogv", sig[0]) < 0 {
		return 0, errSignature
	}
	return 1, nil
}

// alignment is what a value's offset in a message is a multiple of.
func alignment(sig string) int {
	switch sig[0] {
	case 'n', 'q':
		return 2
	case 'b', 'i', 'u', 's', 'o', 'a':
		return 4
	case 'x', 't', 'd', '(', '{':
		return 8
	}
	return 1
}

// appendValues appends values of a signature of as many types.
func appendValues(b []byte, sig string, values ...any) ([]byte, error) {
	for _, v := range values {
		first, rest, err := next(sig)
		if err == nil {
			b, err = appendValue(b, first, v)
		}
		if err != nil {
			return nil, err
		}
		sig = rest
	}
	if sig != "" {
		return nil, fmt.Errorf("no value for %q", sig)
	}
	return b, nil
}

func pad(b []byte, to int) []byte {
	for len(b)%to != 0 {
		b = append(b, 0)
	}
	return b
}

func appendValue(b []byte, sig string, value any) ([]byte, error) {
	b = pad(b, alignment(sig))
	order := binary.LittleEndian
	switch v := value.(type) {
	case byte:
		if sig == "y" {
			return append(b, v), nil
		}
	case bool:
		if sig == "b" {
			n := uint32(0)
			if v {
				n = 1
			}
			return order.AppendUint32(b, n), nil
		}
	case int16:
		if sig == "n" {
			return order.AppendUint16(b, uint16(v)), nil
		}
	case uint16:
		if sig == "q" {
			return order.AppendUint16(b, v), nil
		}
	case int32:
		if sig == "i" {
			return order.AppendUint32(b, uint32(v)), nil
		}
	case uint32:
		if sig == "u" {
			return order.AppendUint32(b, v), nil
		}
	case int64:
		if sig == "x" {
			return order.AppendUint64(b, uint64(v)), nil
		}
	case uint64:
		if sig == "t" {
			return order.AppendUint64(b, v), nil
		}
	case float64:
		if sig == "d" {
			return order.AppendUint64(b, math.Float64bits(v)), nil
		}
	default:
		return appendContainer(b, sig, value)
	}
	return nil, fmt.Errorf("%T is not of type %q", value, sig)
}

// appendContainer appends what has parts; b is aligned.
func appendContainer(b []byte, sig string, value any) ([]byte, error) {
	switch v := value.(type) {
	case string:
		switch sig {
		case "s", "o":
			b = binary.LittleEndian.AppendUint32(b, uint32(len(v)))
			return append(append(b, v...), 0), nil
		case "g":
			if len(v) < 256 {
				return append(append(append(b, byte(len(v))), v...), 0), nil
			}
		}
	case Variant:
		if sig == "v" {
			b, err := appendValue(b, "g", v.Signature)
			if err != nil {
				return nil, err
			}
			return appendValues(b, v.Signature, v.Value)
		}
	case []any:
		if sig[0] == '(' || sig[0] == '{' {
			return appendValues(b, sig[1:len(sig)-1], v...)
		}
		if sig[0] == 'a' {
			return appendArray(b, sig[1:], v)
		}
	}
	return nil, fmt.Errorf("%T is not of type %q", value, sig)
}

func appendArray(b []byte, elem string, values []any) ([]byte, error) {
	at := len(b)
	b = pad(append(b, 0, 0, 0, 0), alignment(elem))
	begin := len(b)
	var err error
	for _, v := range values {
		if b, err = appendValue(b, elem, v); err != nil {
			return nil, err
		}
	}
	binary.LittleEndian.PutUint32(b[at:], uint32(len(b)-begin)) // the padding before the first is not counted
	return b, nil
}

// A reader takes values from a message.
type reader struct {
	b   []byte // the message so far as its length is known
	at  int
	err error
}

var errShort = errors.New("the message ends early")

// take returns the next n bytes after alignment, or nil at the end.
func (r *reader) take(align, n int) []byte {
	at := (r.at + align - 1) / align * align
	if r.err != nil || n < 0 || at > len(r.b) || n > len(r.b)-at {
		r.fail(errShort)
		return nil
	}
	r.at = at + n
	return r.b[at:r.at]
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// values reads values of a signature.
func (r *reader) values(sig string, depth int) (list []any) {
	for sig != "" && r.err == nil {
		first, rest, err := next(sig)
		if err != nil {
			r.fail(err)
			return nil
		}
		list, sig = append(list, r.value(first, depth)), rest
	}
	return list
}

func (r *reader) uint32() uint32 {
	if b := r.take(4, 4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) text(n int) string {
	s := string(r.take(1, n))
	r.take(1, 1) // the NUL
	return s
}

func (r *reader) value(sig string, depth int) any {
	if depth > maxDepth {
		r.fail(errSignature)
	}
	align := alignment(sig)
	order := binary.LittleEndian
	switch sig[0] {
	case 'y':
		if b := r.take(1, 1); b != nil {
			return b[0]
		}
	case 'b':
		return r.uint32() != 0
	case 'n', 'q':
		if b := r.take(align, 2); b != nil {
			if n := order.Uint16(b); sig == "q" {
				return n
			}
			return int16(order.Uint16(b))
		}
	case 'i':
		return int32(r.uint32())
	case 'u':
		return r.uint32()
	case 'x', 't', 'd':
		if b := r.take(align, 8); b != nil {
			n := order.Uint64(b)
			return map[byte]any{'x': int64(n), 't': n, 'd': math.Float64frombits(n)}[sig[0]]
		}
	case 's', 'o':
		return r.text(int(r.uint32()))
	case 'g':
		if b := r.take(1, 1); b != nil {
			return r.text(int(b[0]))
		}
	case 'v':
		return r.variant(depth)
	case '(', '{':
		r.take(align, 0)
		return r.values(sig[1:len(sig)-1], depth+1)
	case 'a':
		return r.array(sig[1:], depth)
	}
	return nil
}

func (r *reader) variant(depth int) any {
	sig, _ := r.value("g", depth).(string)
	first, rest, err := next(sig)
	if err != nil || rest != "" {
		r.fail(errSignature)
		return nil
	}
	return Variant{first, r.value(first, depth+1)}
}

func (r *reader) array(elem string, depth int) any {
	n := int(r.uint32())
	r.take(alignment(elem), 0)
	if r.err != nil || n > len(r.b)-r.at {
		r.fail(errShort)
		return nil
	}
	list, end := []any{}, r.at+n
	for r.at < end && r.err == nil {
		list = append(list, r.value(elem, depth+1))
	}
	return list
}
