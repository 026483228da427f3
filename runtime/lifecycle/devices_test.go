package lifecycle_test

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
)

// privateNetwork gives the test's thread a network namespace with the pair of
// interfaces tare0 and tare1. The thread comes back, as it may be the process's
// first, whose namespaces others take for the process's.
func privateNetwork(t *testing.T) {
	t.Helper()
	testenv.Root(t)
	testenv.Tool(t, "ip")
	testenv.Leaks(t)
	runtime.LockOSThread()
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET), ns.Close()); err != nil {
			t.Fatal(err) // the thread ends with the test's goroutine
		}
		runtime.UnlockOSThread()
	})
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	testenv.Run(t, "ip", "link", "add", "tare0", "mtu", "1400", "type", "veth", "peer", "name", "tare1")
	testenv.Run(t, "ip", "address", "add", "10.1.2.3/24", "dev", "tare0")
	testenv.Run(t, "ip", "address", "add", "fd00::3/64", "dev", "tare0", "nodad")
	testenv.Run(t, "ip", "link", "set", "tare0", "up")
}

// interfaces are those of the test's namespace but lo.
func interfaces(t *testing.T) string {
	t.Helper()
	var names []string
	for line := range strings.Lines(testenv.Run(t, "ip", "-oneline", "link")) {
		name, _, _ := strings.Cut(strings.Fields(line)[1], "@")
		if name = strings.TrimSuffix(name, ":"); name != "lo" {
			names = append(names, name)
		}
	}
	return strings.Join(names, " ")
}

// addresses are those of tare0.
func addresses(t *testing.T) string {
	t.Helper()
	fields := strings.Fields(testenv.Run(t, "ip", "-brief", "address", "show", "dev", "tare0"))
	return fmt.Sprint(fields[2:]) // behind the name and a state that comes late
}

func TestNetDevices(t *testing.T) {
	const script = `ifconfig -a | sed -n 's/ .*//p' | tr -s '\n' ' '; ifconfig eth7 | sed -n 's/ *\(inet.*\)/\1/p; s/ *\(UP.*\)  Metric.*/\1/p'`
	for _, c := range []struct {
		name   string
		change func(*bundle)
	}{
		{"new network", func(*bundle) {}},
		{"user namespace", (*bundle).userNamespace},
		{"user namespace without a pid namespace", func(b *bundle) {
			b.userNamespace()
			b.without(specs.PIDNamespace)
			b.Mounts = b.Mounts[1:]
			b.mount("bind", "/proc", "/proc", "rbind")
			b.Linux.MaskedPaths, b.Linux.ReadonlyPaths = nil, nil
		}},
		{"joined network", func(b *bundle) {
			// The thread that made it is gone by the time; a mount keeps it.
			path := b.path("netns")
			b.write("netns", "", 0o600)
			testenv.Run(b.t, "unshare", "--net="+path, "true")
			b.t.Cleanup(func() { testenv.Run(b.t, "umount", path) })
			b.namespace(specs.NetworkNamespace, path)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			privateNetwork(t)
			b := newBundle(t, script)
			c.change(b)
			b.Linux.NetDevices = map[string]specs.LinuxNetDevice{"tare0": {Name: "eth7"}, "tare1": {}}
			out, status := b.run()
			if status != 0 || !strings.HasPrefix(out, "eth7 ") || !strings.Contains(out, " tare1 ") ||
				!strings.Contains(out, "addr:10.1.2.3  Bcast:0.0.0.0  Mask:255.255.255.0") || !strings.Contains(out, "fd00::3/64 Scope:Global") ||
				!strings.Contains(out, "UP BROADCAST RUNNING MULTICAST  MTU:1400") {
				t.Errorf("exit status %d, printed\n%s", status, out)
			}
			if left := interfaces(t); left != "" {
				t.Errorf("the host still has %s", left)
			}
		})
	}
}

// A container that fails, whyever, leaves the host its interfaces.
func TestNetDevicesStay(t *testing.T) {
	for _, c := range []struct {
		name, err string
		change    func(*bundle)
	}{
		{"another that is missing", `linux.netDevices["tare9"]`, func(b *bundle) {
			b.Linux.NetDevices["tare9"] = specs.LinuxNetDevice{}
		}},
		{"a name that is taken", `linux.netDevices["tare1"]`, func(b *bundle) {
			b.Linux.NetDevices["tare1"] = specs.LinuxNetDevice{Name: "tare0"}
		}},
		{"a step that fails later", "linux.memoryPolicy", func(b *bundle) {
			b.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "1000"}
		}},
		{"the host's network", "linux.netDevices", func(b *bundle) {
			b.namespace(specs.NetworkNamespace, fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			privateNetwork(t)
			before := interfaces(t) + addresses(t)
			b := newBundle(t, "true")
			b.Linux.NetDevices = map[string]specs.LinuxNetDevice{"tare0": {}}
			c.change(b)
			_, _, err := b.tryRun(t.Context())
			wantError(t, "run", err, c.err)
			b.wantNothing()
			if after := interfaces(t) + addresses(t); after != before {
				t.Errorf("the interfaces were\n%s\nand are\n%s", before, after)
			}
		})
	}
}

// Without the file system that it takes, a share of caches is refused, and the
// error says so.
func TestIntelRdtRefused(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), " - resctrl ") {
		t.Fatalf("this test is for machines without resctrl: %v", err)
	}
	b := newBundle(t, "true")
	b.Linux.IntelRdt = &specs.LinuxIntelRdt{ClosID: "guaranteed", Schemata: []string{"L3:0=7f0"}}
	_, _, err := b.tryRun(t.Context())
	wantError(t, "run", err, "linux.intelRdt: no resctrl file system is mounted on this machine")
	b.wantNothing()
}
