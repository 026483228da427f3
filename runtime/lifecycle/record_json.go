package lifecycle

import (
	"sort"
	"strconv"
	"time"
	"unicode/utf8"
)

// appendJSON appends the record as JSON, the same as encoding/json would: that
// package's first use in a process takes longer than all else about the file.
func (r *Record) appendJSON(b []byte) []byte {
	b = append(b, `{"version":`...)
	b = strconv.AppendInt(b, int64(r.Version), 10)
	b = appendString(append(b, `,"ociVersion":`...), r.OCIVersion)
	b = appendString(append(b, `,"id":`...), r.ID)
	if r.PID != 0 {
		b = strconv.AppendInt(append(b, `,"pid":`...), int64(r.PID), 10)
	}
	if r.StartTime != 0 {
		b = strconv.AppendUint(append(b, `,"startTime":`...), r.StartTime, 10)
	}
	b = appendString(append(b, `,"bundle":`...), r.Bundle)
	b = appendString(append(b, `,"rootfs":`...), r.Rootfs)
	b = appendString(append(b, `,"created":`...), r.Created.Format(time.RFC3339Nano))
	b = strconv.AppendInt(append(b, `,"uid":`...), int64(r.UID), 10)
	b = appendMap(b, "annotations", r.Annotations)
	b = appendMap(b, "cgroups", r.Cgroups)
	if r.NoNewKeyring {
		b = append(b, `,"noNewKeyring":true`...)
	}
	for i, s := range r.Tail {
		b = append(b, [...]string{`,"tail":[`, `,`}[min(i, 1)]...)
		b = strconv.AppendUint(append(b, `{"address":`...), s.Address, 10)
		b = appendString(append(b, `,"text":`...), s.Text)
		if s.Field != "" {
			b = appendString(append(b, `,"field":`...), s.Field)
		}
		b = append(b, '}')
	}
	if len(r.Tail) > 0 {
		b = append(b, ']')
	}
	return append(b, '}')
}

func appendMap(b []byte, name string, m map[string]string) []byte {
	if len(m) == 0 {
		return b
	}
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	b = append(append(append(b, `,"`...), name...), `":{`...)
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(append(appendString(b, k), ':'), m[k])
	}
	return append(b, '}')
}

// appendString appends s as a JSON string (RFC 8259, section 7).
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < 0x20:
			const hex = "0123456789abcdef"
			b = append(b, `\u00`...)
			b = append(b, hex[r>>4], hex[r&15])
		default: // what is no UTF-8 comes as U+FFFD
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}
