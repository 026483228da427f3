package tarstream

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// extended is what the headers before an entry say about it.
type extended struct {
	longName, longLink string // GNU

	// PAX. An empty string, or a nil, means that there is none.
	path, linkpath, size, uid, gid, mtime, atime string
	xattrs                                       []Xattr
	others                                       []Xattr // the same by other names, for those that xattrs lacks
	sparse                                       paxSparse
}

// paxSparse is how PAX archives describe a sparse file. Format 0.0 repeats the records offset and numbytes, 0.1 has one
// map, and in 1.0 the map is the first part of the data.
type paxSparse struct {
	major, minor, name, size, realSize, blocks, maps string
	pairs                                            []string // format 0.0
}

func (e *extended) reset() { *e = extended{} }

// resetPAX forgets the PAX records: of two PAX headers in a row, the last one counts.
func (e *extended) resetPAX() {
	*e = extended{longName: e.longName, longLink: e.longLink}
}

// parsePAX reads the records of an extended header, each "LENGTH KEY=VALUE\n" with the length of it all.
func (e *extended) parsePAX(b []byte) error {
	for len(b) > 0 {
		space := bytes.IndexByte(b, ' ')
		if space < 0 {
			return fmt.Errorf("%w: PAX record without a length", ErrHeader)
		}
		n, err := strconv.Atoi(string(b[:space]))
		if err != nil || n > len(b) || n < space+2 || b[n-1] != '\n' {
			return fmt.Errorf("%w: length of a PAX record", ErrHeader)
		}
		key, value, ok := bytes.Cut(b[space+1:n-1], []byte("="))
		if !ok || len(key) == 0 {
			return fmt.Errorf("%w: PAX record without a key", ErrHeader)
		}
		if err := e.record(string(key), value); err != nil {
			return err
		}
		b = b[n:]
	}
	if s := &e.sparse; len(s.pairs) > 0 {
		s.maps = strings.Join(s.pairs, ",")
	}
	return nil
}

const (
	schilyXattr    = "SCHILY.xattr."
	libarchiveAttr = "LIBARCHIVE.xattr."
	schilyACL      = "SCHILY.acl."
	maxXattrs      = 4096    // of an entry: the names that Linux can list have 64 KiB
	maxSparsePairs = 1 << 18 // of format 0.0, whose records are small; each costs us more than it costs the archive
)

func (e *extended) record(key string, value []byte) error {
	if strings.IndexByte(key, 0) >= 0 {
		return fmt.Errorf("%w: NUL in the key of a PAX record", ErrHeader)
	}
	if name, ok := strings.CutPrefix(key, schilyXattr); ok {
		return setXattr(&e.xattrs, Xattr{Name: name, Value: bytes.Clone(value)})
	}
	if x, ok := otherXattr(key, value); ok {
		return setXattr(&e.others, x)
	}
	s := &e.sparse
	var to *string
	switch key {
	case "path":
		to = &e.path
	case "linkpath":
		to = &e.linkpath
	case "size":
		to = &e.size
	case "uid":
		to = &e.uid
	case "gid":
		to = &e.gid
	case "mtime":
		to = &e.mtime
	case "atime":
		to = &e.atime
	case "GNU.sparse.major":
		to = &s.major
	case "GNU.sparse.minor":
		to = &s.minor
	case "GNU.sparse.name":
		to = &s.name
	case "GNU.sparse.size":
		to = &s.size
	case "GNU.sparse.realsize":
		to = &s.realSize
	case "GNU.sparse.numblocks":
		to = &s.blocks
	case "GNU.sparse.map":
		to = &s.maps
	case "GNU.sparse.offset", "GNU.sparse.numbytes":
		return s.pair(key, string(value))
	default:
		return nil // user and group names, comments, vendors' own
	}
	// A NUL would cut a name short further down, and what was checked would not be what is used.
	if bytes.IndexByte(value, 0) >= 0 {
		return fmt.Errorf("%w: NUL in the PAX record %s", ErrHeader, key)
	}
	*to = string(value)
	return nil
}

// otherXattr reads an extended attribute that is written another way than SCHILY.xattr: libarchive's, with the name in
// percent encoding and the value in base 64, which comes beside the former; and an ACL as text. Of libarchive's, one that
// cannot be read is passed over, as it is by tools that do not know these records.
func otherXattr(key string, value []byte) (Xattr, bool) {
	if name, ok := strings.CutPrefix(key, libarchiveAttr); ok {
		name, err := url.PathUnescape(name)
		text, berr := base64.RawStdEncoding.DecodeString(strings.TrimRight(string(value), "="))
		return Xattr{Name: name, Value: text}, err == nil && berr == nil && name != "" && strings.IndexByte(name, 0) < 0
	}
	if kind, ok := strings.CutPrefix(key, schilyACL); ok && (kind == "access" || kind == "default") {
		acl, err := parseACL(string(value))
		return Xattr{"system.posix_acl_" + kind, acl, err}, acl != nil || err != nil
	}
	return Xattr{}, false
}

func setXattr(all *[]Xattr, x Xattr) error {
	if i := slices.IndexFunc(*all, func(have Xattr) bool { return have.Name == x.Name }); i >= 0 {
		(*all)[i] = x
		return nil
	}
	if *all = append(*all, x); len(*all) > maxXattrs {
		return fmt.Errorf("%w: more than %d extended attributes", ErrTooLarge, maxXattrs)
	}
	return nil
}

// allXattrs are those of the entry.
func (e *extended) allXattrs() []Xattr {
	all := e.xattrs
	for _, x := range e.others {
		if !slices.ContainsFunc(e.xattrs, func(have Xattr) bool { return have.Name == x.Name }) {
			all = append(all, x)
		}
	}
	return all
}

func (s *paxSparse) pair(key, value string) error {
	isOffset := key == "GNU.sparse.offset"
	if isOffset != (len(s.pairs)%2 == 0) || strings.ContainsAny(value, ",\x00") {
		return fmt.Errorf("%w: order of the sparse map's PAX records", ErrHeader)
	}
	if len(s.pairs) >= maxSparsePairs {
		return fmt.Errorf("%w: sparse map", ErrTooLarge)
	}
	s.pairs = append(s.pairs, value)
	return nil
}

// apply puts what the extended headers say over what the header block says.
func (e *extended) apply(h *Header, size *int64) (err error) {
	if e.path != "" {
		h.Name = e.path
	}
	if e.linkpath != "" {
		h.Linkname = e.linkpath
	}
	if e.longName != "" {
		h.Name = e.longName
	}
	if e.longLink != "" {
		h.Linkname = e.longLink
	}
	for _, n := range []struct {
		text, what string
		to         *int64
	}{{e.size, "size", size}, {e.uid, "uid", &h.UID}, {e.gid, "gid", &h.GID}} {
		if n.text == "" {
			continue
		}
		if *n.to, err = parseDecimal(n.text); err != nil {
			return fmt.Errorf("%w: PAX %s", ErrHeader, n.what)
		}
	}
	hadAtime := h.AccessTime != h.ModTime
	if e.mtime != "" {
		if h.ModTime, err = parseTime(e.mtime); err != nil {
			return fmt.Errorf("%w: PAX mtime", ErrHeader)
		}
		if !hadAtime {
			h.AccessTime = h.ModTime
		}
	}
	if e.atime != "" {
		if h.AccessTime, err = parseTime(e.atime); err != nil {
			return fmt.Errorf("%w: PAX atime", ErrHeader)
		}
	}
	return nil
}
