package tarstream

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
)

var errNumber = errors.New("not a number")

// parseNumber reads a numeric header field: octal digits, or GNU's base 256 when the first bit is set, in two's complement.
func parseNumber(field []byte) (int64, error) {
	if len(field) > 0 && field[0]&0x80 != 0 {
		return parseBase256(field)
	}
	return parseOctal(field)
}

func parseBase256(field []byte) (int64, error) {
	var inverted byte // XORed with each byte, so that a negative number is read as its complement
	if field[0]&0x40 != 0 {
		inverted = 0xff
	}
	var x uint64
	for i, c := range field {
		c ^= inverted
		if i == 0 {
			c &= 0x7f // the mark itself
		}
		if x>>56 != 0 {
			return 0, errNumber
		}
		x = x<<8 | uint64(c)
	}
	if x>>63 != 0 {
		return 0, errNumber
	}
	if inverted != 0 {
		return ^int64(x), nil
	}
	return int64(x), nil
}

// parseOctal reads octal digits with spaces and NULs around them. Nothing at all is 0, as old archives have it.
func parseOctal(field []byte) (int64, error) {
	field = bytes.Trim(field, " \x00")
	if i := bytes.IndexByte(field, 0); i >= 0 {
		field = field[:i]
	}
	var x uint64
	for _, c := range field {
		if c < '0' || c > '7' || x>>61 != 0 {
			return 0, errNumber
		}
		x = x<<3 | uint64(c-'0')
	}
	if x>>63 != 0 {
		return 0, errNumber
	}
	return int64(x), nil
}

// cString is a header field up to its NUL.
func cString(field []byte) string {
	if i := bytes.IndexByte(field, 0); i >= 0 {
		field = field[:i]
	}
	return string(field)
}

// parseTime reads a PAX time: decimal seconds with an optional fraction, of which nanoseconds are kept.
func parseTime(s string) (Time, error) {
	whole, fraction, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return Time{}, errNumber
	}
	const digits = 9
	var nsec int64
	for i := range max(digits, len(fraction)) {
		c := byte('0')
		if i < len(fraction) {
			c = fraction[i]
		}
		if c < '0' || c > '9' {
			return Time{}, errNumber
		}
		if i < digits {
			nsec = nsec*10 + int64(c-'0')
		}
	}
	if strings.HasPrefix(whole, "-") && nsec > 0 {
		if sec--; sec >= 0 {
			return Time{}, errNumber
		}
		nsec = 1e9 - nsec
	}
	return Time{Sec: sec, Nsec: nsec}, nil
}

func parseDecimal(s string) (int64, error) {
	x, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, errNumber
	}
	return x, nil
}
