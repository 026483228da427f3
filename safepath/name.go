package safepath

import (
	"errors"
	"strings"
)

// ErrEscapes says that a name, taken as text, could lead out of the directory it belongs in: it has a ".." component.
var ErrEscapes = errors.New("name leads out of its directory (..)")

var (
	errEmpty = errors.New("name is empty")
	errNUL   = errors.New("name contains a NUL byte")
	errLong  = errors.New("name is longer than 4095 bytes")
	errBase  = errors.New("not the name of a directory entry")
)

// maxNameBytes is the longest path the kernel takes in one call (PATH_MAX less its NUL).
const maxNameBytes = 4095

// Clean brings a name from outside into the one form that the functions of this package return: relative, without empty
// and "." components, without a trailing slash, "." for the directory itself. An absolute name is taken relative to the
// directory. It looks at nothing but the text, so it refuses every ".." (ErrEscapes): what that would mean depends on
// what is on disk.
func Clean(name string) (string, error) {
	if isClean(name) {
		return name, nil
	}
	if name == "" {
		return "", errEmpty
	}
	parts, err := split(name)
	if err != nil {
		return "", err
	}
	for _, p := range parts {
		if p == ".." {
			return "", ErrEscapes
		}
	}
	return join(parts), nil
}

// isClean says whether name has nothing that Clean would change or refuse, without allocating: nearly every name does.
func isClean(name string) bool {
	if len(name) == 0 || len(name) > maxNameBytes {
		return false
	}
	start := 0
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			if name[i] == 0 {
				return false
			}
			continue
		}
		switch part := name[start:i]; part {
		case "", ".", "..":
			return false
		}
		start = i + 1
	}
	return true
}

// split cuts a path into its components, leaving out empty ones and ".".
func split(path string) ([]string, error) {
	if len(path) > maxNameBytes {
		return nil, errLong
	}
	if strings.IndexByte(path, 0) >= 0 {
		return nil, errNUL
	}
	var parts []string
	for part := range strings.SplitSeq(path, "/") {
		if part != "" && part != "." {
			parts = append(parts, part)
		}
	}
	return parts, nil
}

func join(parts []string) string {
	if len(parts) == 0 {
		return "."
	}
	return strings.Join(parts, "/")
}

// SplitBase cuts a name as Clean returns it into the directory ("." for none) and its last component.
func SplitBase(clean string) (dir, base string) {
	if i := strings.LastIndexByte(clean, '/'); i >= 0 {
		return clean[:i], clean[i+1:]
	}
	return ".", clean
}

// checkBase makes sure that base is one component, so that an *at call on it stays in the directory.
func checkBase(base string) error {
	if base == "" || base == "." || base == ".." || strings.IndexByte(base, '/') >= 0 || strings.IndexByte(base, 0) >= 0 {
		return errBase
	}
	return nil
}
