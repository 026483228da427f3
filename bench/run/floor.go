package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"

	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/host"
	"github.com/tare-oci/tare/runtime/lifecycle"
	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/spec"
)

// floorSource does by hand what has to be done around a program image: make
// the control groups with their limits, clone, exec, answer "ready", wait,
// remove.
const floorSource = `
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const groups[] = { %s };
enum { ngroups = sizeof groups / sizeof *groups };
static char path[4096];
static char stack[65536] __attribute__((aligned(16)));
static int pair[2], tasks[ngroups];

static int child(void *unused)
{
	int i;
	for (i = 0; i < ngroups; i++) tasks[i] = fcntl(tasks[i], F_DUPFD, 100);
	int s = fcntl(pair[1], F_DUPFD, 100);
	dup2(s, 3);
	for (i = 0; i < ngroups; i++) dup2(tasks[i], 4 + i);
	execve("%s", (char *[]){ "tare-init", 0 }, (char *[]){ 0 });
	_exit(102);
}

static void put(const char *dir, const char *file, const char *const *values)
{
	stpcpy(stpcpy(path, dir), file);
	int fd = open(path, O_WRONLY);
	for (; *values; values++)
		if (write(fd, *values, strlen(*values)) < 0) _exit(104);
	close(fd);
}

int main(void)
{
	int status, i;
	char c;
	for (i = 0; i < ngroups; i++) {
		mkdir(groups[i], 0755);
		if (strstr(groups[i], "/cpuset/")) { /* empty when new, and then nobody may join */
			put(groups[i], "/cpuset.cpus", (const char *[]){ "%s", 0 });
			put(groups[i], "/cpuset.mems", (const char *[]){ "%s", 0 });
		}
		if (strstr(groups[i], "/devices/")) { /* linux.resources.devices: all but the default devices denied */
			put(groups[i], "/devices.deny", (const char *[]){ "a", 0 });
			put(groups[i], "/devices.allow", (const char *[]){ "c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm",
				"c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm", "c 10:200 rwm", 0 });
		}
		char *end = stpcpy(path, groups[i]);
		stpcpy(end, "/tasks");
		if ((tasks[i] = open(path, O_WRONLY | O_CLOEXEC)) < 0) return 101;
	}
	socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair);
	pid_t pid = clone(child, stack + sizeof stack, %#x | CLONE_VFORK | CLONE_VM | SIGCHLD, 0);
	close(pair[1]);
	if (read(pair[0], &c, 1) != 1 || write(pair[0], "g", 1) != 1) return 103;
	waitpid(pid, &status, 0);
	for (i = 0; i < ngroups; i++) rmdir(groups[i]);
	return status != 0;
}
`

// makeFloor compiles the bundle's program image and the C program around it.
func makeFloor(dir string) (path string, err error) {
	s, err := spec.Load(filepath.Join(dir, "config.json"))
	if err != nil {
		return "", err
	}
	machine, err := host.Probe()
	if err != nil {
		return "", err
	}
	manager, err := cgroup.New(machine, cgroup.Options{ID: "bench-floor"})
	if err != nil {
		return "", err
	}
	facts, err := lifecycle.Facts(s, machine, dir, "bench-floor")
	if err != nil {
		return "", err
	}
	lifecycle.CgroupFacts(facts, manager.Paths())
	facts.CgroupsBeside, facts.AtOnce = false, true // one thing after the other
	p, err := plan.Compile(s, facts)
	if err != nil {
		return "", err
	}
	image, err := p.Program()
	if err != nil {
		return "", err
	}
	elf := filepath.Join(dir, "floor.elf")
	if err := os.WriteFile(elf, image.ELF, 0o755); err != nil {
		return "", err
	}
	groups := map[string]bool{}
	for _, g := range manager.Paths() {
		groups[fmt.Sprintf("%q", g)] = true
	}
	var list []string
	for g := range groups {
		list = append(list, g)
	}
	sort.Strings(list)
	cpus, mems, err := cpusetOf(manager.Paths()["cpuset"])
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "floor")
	gcc := exec.Command("gcc", "-O2", "-static", "-Wall", "-x", "c", "-o", path, "-")
	gcc.Stdin = strings.NewReader(fmt.Sprintf(floorSource, strings.Join(list, ", "), elf, cpus, mems, p.Namespaces))
	if out, err := gcc.CombinedOutput(); err != nil {
		return "", fmt.Errorf("gcc: %w: %s", err, out)
	}
	return path, nil
}

// cpusetOf reads what a version 1 cpuset below dir's parent has to be given.
func cpusetOf(dir string) (cpus, mems string, err error) {
	if dir == "" {
		return "", "", nil
	}
	var v [2]string
	for i, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		data, err := os.ReadFile(filepath.Join(filepath.Dir(dir), name))
		if err != nil {
			return "", "", err
		}
		v[i] = strings.TrimSpace(string(data))
	}
	return v[0], v[1], nil
}
