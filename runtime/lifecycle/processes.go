package lifecycle

import (
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// inNamespace are the processes of a container without a control group: those of
// the pid namespace that is its own, less those of namespaces within it.
func (c *Container) inNamespace() ([]int, error) {
	if c.SharedPID {
		return nil, fmt.Errorf("container %q: its processes are not known: it has neither a control group nor a pid namespace of its own", c.ID)
	}
	var own unix.Stat_t
	if c.PID == 0 || !c.alive() {
		return nil, nil // with its first process all others have ended
	}
	if unix.Stat(pidNamespace(c.PID), &own) != nil {
		return []int{c.PID}, nil // nobody may look at it before it runs its program, and then there is no other
	}
	names, err := listProcesses()
	if err != nil {
		return nil, fmt.Errorf("container %q: %w", c.ID, err)
	}
	var pids []int
	for _, name := range names {
		var st unix.Stat_t
		pid, err := strconv.Atoi(name)
		// What we may not look at is not in a namespace of ours; nor is what ends meanwhile.
		if err == nil && unix.Stat(pidNamespace(pid), &st) == nil && st.Dev == own.Dev && st.Ino == own.Ino {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, nil
}

func pidNamespace(pid int) string { return "/proc/" + strconv.Itoa(pid) + "/ns/pid" }

func listProcesses() ([]string, error) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer proc.Close()
	return proc.Readdirnames(-1)
}
