package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/tare-oci/tare/bench/internal/measure"
	"github.com/tare-oci/tare/bench/internal/runtimes"
)

// peak runs a command and returns its largest resident set. A process inherits
// that of the one it was forked from, so the command is started by one that is
// smaller than any contender: GNU time.
func peak(ctx context.Context, dir string, args []string) (int64, error) {
	out := filepath.Join(dir, "peak")
	if _, err := measure.Run(exec.CommandContext(ctx, "/usr/bin/time", append([]string{"-f", "%M", "-o", out}, args...)...)); err != nil {
		return 0, err
	}
	kib, err := number(out)
	return kib * 1024, err
}

// number reads a file that holds one.
func number(path string) (int64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return n, nil
}

// look measures what there is of the only container. All that the runtime has
// left running are children of ours.
func look(c runtimes.Contender, pidFile string) (f footprint, err error) {
	init, err := number(pidFile)
	if err != nil {
		return f, err
	}
	pids, err := children()
	if err != nil {
		return f, err
	}
	found := false
	for _, pid := range pids {
		private, err := privateBytes(pid)
		if err != nil {
			return f, err
		}
		if pid == init {
			found = true
			f.initBytes = private
			continue
		}
		f.processes++
		f.processBytes += private
	}
	if !found {
		return f, fmt.Errorf("process %d of the container of %s is not among %d", init, c.Name, pids)
	}
	f.stateBytes, err = diskBytes(c.State())
	return f, err
}

func children() (pids []int64, err error) {
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return nil, err
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			return nil, err
		}
		for _, field := range strings.Fields(string(text)) {
			pid, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", task, err)
			}
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// privateBytes is the memory that would be free without the process.
func privateBytes(pid int64) (sum int64, err error) {
	path := fmt.Sprintf("/proc/%d/smaps_rollup", pid)
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for _, key := range []string{"\nPrivate_Clean:", "\nPrivate_Dirty:"} {
		_, after, _ := bytes.Cut(text, []byte(key))
		var kib int64
		if _, err := fmt.Sscan(string(after), &kib); err != nil {
			return 0, fmt.Errorf("%s: %s %w", path, strings.TrimSpace(key), err)
		}
		sum += kib * 1024
	}
	return sum, nil
}

// diskBytes is what the files and directories below dir take.
func diskBytes(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			sum += st.Blocks * 512
		}
		return nil
	})
	return sum, err
}
