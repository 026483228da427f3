package rdt

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNotMounted is returned by Root where this machine has no resctrl file
// system, for want of hardware, of kernel support, or of a mount.
var ErrNotMounted = errors.New("no resctrl file system is mounted on this machine")

const usual = "/sys/fs/resctrl"

// Root returns where resctrl is mounted.
func Root() (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(usual, &st); err == nil && int64(st.Type) == unix.RDTGROUP_SUPER_MAGIC {
		return usual, nil
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	return findMount(f)
}

// findMount reads the first mount of resctrl from proc_pid_mountinfo(5).
func findMount(mountinfo io.Reader) (string, error) {
	lines := bufio.NewScanner(mountinfo)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		// … root mountpoint options … - type source options
		mount, fs, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(mount)
		if ok && len(fields) >= 5 && strings.HasPrefix(fs, "resctrl ") {
			return unescape.Replace(fields[4]), nil
		}
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("/proc/self/mountinfo: %w", err)
	}
	return "", ErrNotMounted
}

// unescape undoes mangle_path of the kernel.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
