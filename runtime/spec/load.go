//go:build linux

package spec

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/quickjson"
)

// Load reads and decodes the config.json at path. It does not validate.
func Load(path string) (*specs.Spec, error) {
	s, _, err := LoadData(path)
	return s, err
}

// LoadData is Load, and returns the document as well.
func LoadData(path string) (*specs.Spec, []byte, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, nil, err
	}
	s, err := quickjson.Decode(path, data, decSpec)
	return s, data, err
}

// LoadProcess reads and decodes the process.json at path.
func LoadProcess(path string) (*specs.Process, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return quickjson.Decode(path, data, decProcess)
}

// readFile makes four system calls; package os would enter the file into the runtime's poller, for four more. O_NONBLOCK keeps
// a FIFO in the file's place from holding us up; only regular files are read.
func readFile(path string) ([]byte, error) {
	fd, err := retryInt(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0) })
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("read %s: not a regular file", path)
	}
	if st.Size > maxBytes {
		return nil, &Error{File: path, Offset: maxBytes, Msg: fmt.Sprintf("longer than %d bytes", maxBytes)}
	}
	buf := make([]byte, st.Size+1) // one more, to see the end with the first read
	for n := 0; ; {
		m, err := retryInt(func() (int, error) { return unix.Read(fd, buf[n:]) })
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		n += m
		if m == 0 || n < len(buf) {
			return buf[:n], nil
		}
		if n > maxBytes {
			return nil, &Error{File: path, Offset: maxBytes, Msg: fmt.Sprintf("longer than %d bytes", maxBytes)}
		}
		buf = append(buf, make([]byte, len(buf))...) // it grew since
	}
}

func retryInt(f func() (int, error)) (int, error) {
	for {
		if n, err := f(); err != unix.EINTR {
			return n, err
		}
	}
}
