package lifecycle_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
)

// How the kernel schedules the process and gives it memory, as the process
// finds it.
func TestScheduling(t *testing.T) {
	const scheduled = "cut -d' ' -f19,40,41 /proc/self/stat" // nice, priority, policy: proc_pid_stat(5)
	scheduler := func(s specs.Scheduler) func(*bundle) {
		return func(b *bundle) {
			b.Process.Scheduler = &s
			// CONFIG_RT_GROUP_SCHED gives new version 1 groups no real time.
			b.Linux.CgroupsPath = ""
		}
	}
	raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0) // 20 less the nice value: getpriority(2)
	if err != nil {
		t.Fatal(err)
	}
	ours := fmt.Sprint(20 - raw)
	uname := map[string]string{"amd64": "i686", "arm64": "armv8l"}[runtime.GOARCH]
	look(t, []view{
		{name: "as its caller", script: scheduled, want: ours + " 0 0"},
		{name: "batch", script: scheduled, want: "5 0 3", change: scheduler(specs.Scheduler{Policy: specs.SchedBatch, Nice: 5})},
		{name: "nicer than its caller", script: scheduled, want: "-7 0 0", change: scheduler(specs.Scheduler{Policy: specs.SchedOther, Nice: -7})},
		{name: "idle", script: scheduled, want: ours + " 0 5", change: scheduler(specs.Scheduler{Policy: specs.SchedIdle})},
		{name: "deadline", script: scheduled, want: ours + " 0 6",
			change: func(b *bundle) {
				// Such a process may not fork: it is the program itself that looks.
				b.Process.Args = []string{"cut", "-d", " ", "-f19,40,41", "/proc/self/stat"}
				scheduler(specs.Scheduler{Policy: specs.SchedDeadline, Runtime: 1_000_000, Deadline: 20_000_000, Period: 20_000_000})(b)
			}},
		// What is started is less than nice no more (sched_fork).
		{name: "reset on fork", script: scheduled + "; cut -d' ' -f19,40,41 /proc/1/stat", want: lines("0 0 3", "-3 0 3"),
			change: scheduler(specs.Scheduler{Policy: specs.SchedBatch, Nice: -3, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork}})},
		{name: "io priority", script: "ionice -p 1; ionice -p $$", want: lines("best-effort: prio 6", "best-effort: prio 6"),
			change: func(b *bundle) {
				b.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 6}
			}},
		{name: "io idle", script: "ionice -p 1", want: "idle",
			change: func(b *bundle) {
				b.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_IDLE}
			}},
		{name: "personality", script: "uname -m; cat /proc/self/personality", want: lines(uname, "00000008"),
			change: func(b *bundle) { b.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32} }},
		{name: "memory policy", script: "cut -d' ' -f2 /proc/self/numa_maps | head -n1", want: "bind=static:0",
			change: func(b *bundle) {
				b.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes}}
			}},
		{name: "memory policy without nodes", script: "cut -d' ' -f2 /proc/self/numa_maps | head -n1", want: "local",
			change: func(b *bundle) { b.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolLocal} }},
		{name: "CPUs for exec only", script: "grep -c . /proc/self/status | grep -q . && echo runs", want: "runs",
			change: func(b *bundle) { b.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0", Final: "0"} }},
	})
}

// What the kernel refuses is told with the field, and leaves nothing.
func TestRefusedAttributes(t *testing.T) {
	m := machine(t)
	testenv.Leaks(t)
	m.ProbeLSM()
	for _, c := range []struct {
		name, err string
		change    func(*bundle)
	}{
		{"no such scheduler", "process.scheduler", func(b *bundle) { b.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedISO} }},
		{"impossible deadline", "process.scheduler", func(b *bundle) {
			b.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedDeadline, Runtime: 2_000_000, Deadline: 1_000_000, Period: 1_000_000}
		}},
		{"no such memory node", "linux.memoryPolicy", func(b *bundle) {
			b.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "1000"}
		}},
		{"sysctl of the host's network, joined", `linux.sysctl["net.ipv4.ip_forward"]`, func(b *bundle) {
			b.namespace(specs.NetworkNamespace, "/proc/self/ns/net")
			b.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
		}},
		{"sysctl that is not there", `linux.sysctl["net.nothing.here"]`, func(b *bundle) {
			b.Linux.Sysctl = map[string]string{"net.nothing.here": "1"}
		}},
		{"no such AppArmor profile", "process.apparmorProfile", func(b *bundle) { b.Process.ApparmorProfile = b.id }},
		{"SELinux label", "process.selinuxLabel", func(b *bundle) { b.Process.SelinuxLabel = "no:such:label:s0" }},
		{"a section of Windows", "windows", func(b *bundle) { b.Windows = &specs.Windows{} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBundle(t, "true")
			c.change(b)
			_, _, err := b.tryRun(t.Context())
			wantError(t, "run", err, c.err)
			b.wantNothing()
		})
	}
	if !m.AppArmor {
		b := newBundle(t, "true")
		b.Process.ApparmorProfile = "x"
		_, _, err := b.tryRun(t.Context())
		wantError(t, "run", err, "AppArmor is not enabled on this machine")
	}
}

// profile lets a process do anything but write below /denied.
const profile = `
profile PROFILE flags=(attach_disconnected,mediate_deleted) {
  file,
  capability,
  network,
  mount,
  signal,
  deny /denied/** w,
}
`

// An AppArmor profile is in force for the program, and for what it starts.
func TestAppArmor(t *testing.T) {
	m := machine(t)
	if m.ProbeLSM(); !m.AppArmor {
		t.Skip("AppArmor is not enabled on this machine; the test runs in the virtual machine (test/vm/tests)")
	}
	testenv.Leaks(t)
	name := testenv.Name(t)
	file := filepath.Join(t.TempDir(), "profile")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(profile, "PROFILE", name)), 0o600); err != nil {
		t.Fatal(err)
	}
	testenv.Run(t, "apparmor_parser", "--replace", "--skip-cache", file)
	t.Cleanup(func() { testenv.Run(t, "apparmor_parser", "--remove", file) })
	t.Run("exec", func(t *testing.T) {
		for _, userNamespace := range []bool{false, true} {
			b := running(t, func(b *bundle) {
				if userNamespace {
					b.userNamespace()
				}
			})
			out, status, err := b.exec(func(p *specs.Process) { p.ApparmorProfile = name }, "cat /proc/self/attr/current")
			if err != nil || status != 0 || out != name+" (enforce)" {
				t.Errorf("exit status %d, %v; printed %q", status, err, out)
			}
			_, _, err = b.exec(func(p *specs.Process) { p.ApparmorProfile = name + "-missing" }, "true")
			wantError(t, "exec", err, "is not loaded")
		}
	})
	const script = "cat /proc/self/attr/current; cat /proc/1/attr/current; mkdir -p /denied; touch /allowed; touch /denied/x"
	want := lines(name+" (enforce)", name+" (enforce)", "touch: /denied/x: Permission denied")
	confined := func(more func(*bundle)) func(*bundle) {
		return func(b *bundle) {
			b.Process.ApparmorProfile = name
			more(b)
		}
	}
	look(t, []view{
		{name: "root", script: script, want: want, status: 1, change: confined(func(*bundle) {})},
		{name: "user namespace", script: script, want: want, status: 1, change: confined((*bundle).userNamespace)},
		{name: "host processes", script: strings.ReplaceAll(script, "cat /proc/1/attr/current", "echo '"+name+" (enforce)'"), want: want, status: 1,
			change: confined(func(b *bundle) { b.without(specs.PIDNamespace) })},
		{name: "user namespace, host processes", script: "true", change: confined(func(b *bundle) {
			b.userNamespace()
			b.without(specs.PIDNamespace)
			b.Mounts = b.Mounts[1:] // no procfs: the kernel gives none to such a container
			b.Linux.MaskedPaths, b.Linux.ReadonlyPaths = nil, nil
		})},
		{name: "new privileges", script: "cat /proc/self/attr/current", want: name + " (enforce)",
			change: confined(func(b *bundle) { b.Process.NoNewPrivileges = false })},
	})
}

// SELinux runs the program, and a further one, in the context that was asked for,
// and labels the container's session keyring and file systems.
func TestSELinux(t *testing.T) {
	m := machine(t)
	if m.ProbeLSM(); !m.SELinux {
		t.Skip("SELinux is not enabled on this machine; the test runs in the virtual machine (test/vm/selinux)")
	}
	const (
		process = "system_u:system_r:container_t:s0:c1,c2"
		files   = "system_u:object_r:container_file_t:s0"
	)
	labelled := func(b *bundle) {
		b.Process.SelinuxLabel, b.Linux.MountLabel = process, files
		// The kernel of the machine labels no message queues, for runc neither.
		b.Mounts = slices.DeleteFunc(b.Mounts, func(m specs.Mount) bool { return m.Type == "mqueue" })
	}
	const current = "tr '\\000' '\\n' </proc/self/attr/current"
	look(t, []view{
		{name: "process and mounts", script: current + "; grep context=" + files + " /proc/self/mounts | grep -c ' /dev/shm '", want: lines(process, "1"), change: labelled},
		{name: "user namespace", script: current, want: process, change: func(b *bundle) {
			b.userNamespace()
			labelled(b)
		}},
	})
	t.Run("exec", func(t *testing.T) {
		b := running(t, labelled)
		if out, status, err := b.exec(nil, current); err != nil || status != 0 || out != process {
			t.Errorf("exit status %d, %v; printed %q", status, err, out)
		}
	})
	t.Run("a context that is none", func(t *testing.T) {
		testenv.Leaks(t)
		b := newBundle(t, "true")
		b.Process.SelinuxLabel = "no:such:label:s0"
		_, _, err := b.tryRun(t.Context())
		wantError(t, "run", err, `selinux: the policy has no context "no:such:label:s0" (process.selinuxLabel)`)
		b.wantNothing()
	})
}

// What a process of exec asks of the kernel for itself, and what it has from the
// container's own where it asks for nothing.
func TestExecAttributes(t *testing.T) {
	const script = "grep Cpus_allowed_list: /proc/self/status | tr -d '\t'; cut -d' ' -f19,40,41 /proc/self/stat; ionice -p $$; uname -m"
	uname := map[string]string{"amd64": "i686", "arm64": "armv8l"}[runtime.GOARCH]
	b := running(t, func(b *bundle) {
		b.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 3}
		b.Process.ExecCPUAffinity = &specs.CPUAffinity{Final: "0"}
		b.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
	})
	for _, c := range []struct {
		name, want, err string
		change          func(*specs.Process)
	}{
		{"the container's", lines("Cpus_allowed_list:0", "3 0 3", "none: prio 0", uname), "", nil},
		{"its own", lines("Cpus_allowed_list:0", "7 0 0", "best-effort: prio 2", uname), "", func(p *specs.Process) {
			p.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Nice: 7}
			p.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 2}
			p.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0", Final: "0,4000"}
		}},
		{"no CPU to begin on", "", "process.execCPUAffinity.initial", func(p *specs.Process) {
			p.ExecCPUAffinity = &specs.CPUAffinity{Initial: "4000"}
		}},
		{"no CPU to end on", "", "process.execCPUAffinity.final", func(p *specs.Process) {
			p.ExecCPUAffinity = &specs.CPUAffinity{Final: "4000"}
		}},
		{"no such scheduler", "", "process.scheduler", func(p *specs.Process) { p.Scheduler = &specs.Scheduler{Policy: specs.SchedISO} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, status, err := b.exec(c.change, script)
			if c.err != "" {
				wantError(t, "exec", err, c.err)
			} else if err != nil || out != c.want || status != 0 {
				t.Errorf("exit status %d, %v; printed\n%s\nwant\n%s", status, err, out, c.want)
			}
		})
	}
}

// A container without a process can be created, and start says what is missing.
func TestWithoutProcess(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "")
	b.Process = nil
	_, _, err := b.tryRun(t.Context())
	wantError(t, "run", err, "process: missing")
	b.wantNothing()
	c := b.create()
	wantError(t, "start", b.store.Start(t.Context(), b.id), "process: missing")
	if s := c.Status(); s != specs.StateCreated {
		t.Errorf("it is %s after a start that failed, want %s", s, specs.StateCreated)
	}
}

// A limit that leaves no room for a descriptor does not end the process while it
// waits for start.
func TestFewDescriptors(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "")
	b.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 3, Hard: 3}}
	b.Process.Args = []string{"true"}
	c := b.create()
	if s := c.Status(); s != specs.StateCreated {
		t.Fatalf("it is %s", s)
	}
	if err := b.store.Start(t.Context(), b.id); err != nil {
		t.Error(err)
	}
}
