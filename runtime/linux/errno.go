package linux

import "strconv"

// Errnos that the compilers and the lowering of plans name. amd64 and arm64
// have the same numbers; see Errno for the rest.
const (
	EPERM      = 1
	ENOENT     = 2
	ESRCH      = 3
	EINTR      = 4
	EIO        = 5
	EBADF      = 9
	EAGAIN     = 11
	ENOMEM     = 12
	EACCES     = 13
	EBUSY      = 16
	EEXIST     = 17
	ENODEV     = 19
	ENOTDIR    = 20
	EISDIR     = 21
	EINVAL     = 22
	ENOTTY     = 25
	ESPIPE     = 29
	EROFS      = 30
	ENOSYS     = 38
	ELOOP      = 40
	EOPNOTSUPP = 95
)

// Errno returns the number of an errno ("ENOENT").
func Errno(name string) (number int, ok bool) {
	for i := range errnos {
		if errnos[i][0] == name && name != "" {
			return i, true
		}
	}
	return 0, false
}

// ErrnoName returns an errno's name, or its number in digits.
func ErrnoName(number int) string {
	if number <= 0 || number >= len(errnos) || errnos[number][0] == "" {
		return strconv.Itoa(number)
	}
	return errnos[number][0]
}

// ErrnoText returns an errno's short description ("no such file or directory").
func ErrnoText(number int) string {
	if number <= 0 || number >= len(errnos) || errnos[number][0] == "" {
		return "errno " + strconv.Itoa(number)
	}
	return errnos[number][1]
}
