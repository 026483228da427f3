package cgroup

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/tare-oci/tare/internal/testenv"
)

// BenchmarkCreateDestroy makes and removes the cgroups of a container such as Docker asks for.
func BenchmarkCreateDestroy(b *testing.B) {
	f := facts(b)
	r := resources(b, `{"devices":[{"allow":false,"access":"rwm"}],"memory":{"limit":33554432},"cpu":{"shares":512},"pids":{"limit":100}}`)
	path := "/" + testenv.Name(b)
	for b.Loop() {
		m, err := New(f, Options{Path: path, ID: "id"})
		if err != nil {
			b.Fatal(err)
		}
		if err := m.Create(b.Context(), r, 0); err != nil {
			b.Fatal(err)
		}
		if err := m.Destroy(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkJoin compares the ways into version 1's cgroups: a parent that writes the process's number to cgroup.procs, and a process that
// writes "0" to tasks. Between two joins is a pause, as between containers: right after one the kernel's global lock is cheap. Run it
// with -benchtime 50x.
func BenchmarkJoin(b *testing.B) {
	if len(facts(b).Hierarchies) == 0 {
		b.Fatal("there is nothing to compare on version 2, where processes are born in their cgroup")
	}
	child := exec.Command("bash", "-c", "sleep 1000")
	if err := child.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	b.Run("parent-writes-pid-to-cgroup.procs", func(b *testing.B) {
		var ms [2]Manager
		for i := range ms {
			ms[i], _ = newManager(b)
			create(b, ms[i], `{}`)
		}
		for i := 0; b.Loop(); i++ {
			rest(b)
			if err := ms[i%2].Add(child.Process.Pid); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("child-writes-0-to-tasks", func(b *testing.B) { benchmarkTasks(b, "0") })
	b.Run("parent-writes-tid-to-tasks", func(b *testing.B) { benchmarkTasks(b, strconv.Itoa(child.Process.Pid)) })
}

func benchmarkTasks(b *testing.B, value string) {
	var files [2][]*os.File
	for i := range files {
		m, _ := newManager(b)
		create(b, m, `{}`)
		var err error
		if files[i], err = m.JoinFiles(); err != nil {
			b.Fatal(err)
		}
	}
	homes := homeTasks(b)
	if value == "0" {
		defer func() {
			for _, f := range homes {
				fmt.Fprint(f, os.Getpid())
			}
		}()
	}
	for i := 0; b.Loop(); i++ {
		rest(b)
		for _, f := range files[i%2] {
			if _, err := f.WriteString(value); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func rest(b *testing.B) {
	b.StopTimer()
	time.Sleep(30 * time.Millisecond)
	b.StartTimer()
}

// homeTasks opens the cgroup.procs files of this process's own cgroups.
func homeTasks(b *testing.B) []*os.File {
	var files []*os.File
	for _, h := range facts(b).Hierarchies {
		f, err := os.OpenFile(h.Mountpoint+h.OwnPath+"/cgroup.procs", os.O_WRONLY, 0)
		if err != nil {
			b.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

// BenchmarkBirth starts /bin/true, in our own cgroup and in that of Dir.
func BenchmarkBirth(b *testing.B) {
	for _, into := range []bool{false, true} {
		b.Run(fmt.Sprintf("into-cgroup=%v", into), func(b *testing.B) {
			m, _ := newManager(b)
			create(b, m, `{}`)
			dir, err := m.Dir()
			if err != nil {
				b.Fatal(err)
			}
			if dir == nil {
				b.Fatal("on version 1 alone nothing is born into a cgroup")
			}
			defer dir.Close()
			attr := &syscall.SysProcAttr{UseCgroupFD: into, CgroupFD: int(dir.Fd())}
			for b.Loop() {
				rest(b)
				cmd := exec.Command("/bin/true")
				cmd.SysProcAttr = attr
				if err := cmd.Run(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
