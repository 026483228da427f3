package tarstream

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// An ACL entry as the kernel stores it (linux/posix_acl_xattr.h).
type aclEntry struct {
	tag, perm uint16
	id        uint32
}

const (
	aclVersion = 2
	aclNoID    = math.MaxUint32
)

// aclTags are the kinds of entries by their names in text: with nobody named, and with somebody.
var aclTags = map[string][2]uint16{
	"user": {0x01, 0x02}, "u": {0x01, 0x02}, "group": {0x04, 0x08}, "g": {0x04, 0x08},
	"mask": {0x10, 0}, "m": {0x10, 0}, "other": {0x20, 0}, "o": {0x20, 0},
}

// parseACL turns the text of a POSIX ACL, as star, GNU tar and bsdtar write it, into the value of the extended attribute
// system.posix_acl_access or _default. It is nil if the text says no more than a mode does. One that is not well formed, or
// names somebody without giving the number, is an error: who has a name here is not who has it in the image.
func parseACL(text string) ([]byte, error) {
	var entries []aclEntry
	extended := false
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '\n' || r == ',' }) {
		line, _, _ = strings.Cut(line, "#") // what effective rights are, for one
		e, ok := parseACLEntry(strings.TrimSpace(line))
		if !ok {
			return nil, fmt.Errorf("ACL as text: entry %.100q: want TAG:NUMBER:PERMISSIONS", line)
		}
		extended = extended || e.tag != 0x01 && e.tag != 0x04 && e.tag != 0x20
		entries = append(entries, e)
	}
	if !extended {
		return nil, nil
	}
	// The kernel wants them in the order of their tags.
	slices.SortFunc(entries, func(a, b aclEntry) int { return cmp.Or(cmp.Compare(a.tag, b.tag), cmp.Compare(a.id, b.id)) })
	value := binary.LittleEndian.AppendUint32(nil, aclVersion)
	for _, e := range entries {
		value = binary.LittleEndian.AppendUint16(value, e.tag)
		value = binary.LittleEndian.AppendUint16(value, e.perm)
		value = binary.LittleEndian.AppendUint32(value, e.id)
	}
	return value, nil
}

// parseACLEntry reads TAG:NAME:PERMISSIONS[:ID].
func parseACLEntry(line string) (e aclEntry, ok bool) {
	fields := strings.Split(line, ":")
	if len(fields) < 3 || len(fields) > 4 {
		return e, false
	}
	tags, ok := aclTags[fields[0]]
	if !ok {
		return e, false
	}
	e.tag, e.id = tags[0], aclNoID
	if name := fields[1]; name != "" {
		if len(fields) == 4 {
			name = fields[3]
		}
		id, err := strconv.ParseUint(name, 10, 32)
		if err != nil || id == aclNoID || tags[1] == 0 {
			return e, false
		}
		e.tag, e.id = tags[1], uint32(id)
	}
	for _, c := range fields[2] {
		bit, ok := map[rune]uint16{'r': 4, 'w': 2, 'x': 1, '-': 0}[c]
		if !ok {
			return e, false
		}
		e.perm |= bit
	}
	return e, true
}
