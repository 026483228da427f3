package netdev

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
)

// A place is a network namespace with nothing in it.
type place struct {
	t  testing.TB
	ns *os.File
}

// newPlace makes a namespace and leaves this thread in it.
func newPlace(t testing.TB) place {
	t.Helper()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return place{t, ns}
}

// ip runs iproute2 there.
func (p place) ip(args ...string) string {
	p.t.Helper()
	cmd := exec.Command("nsenter", append([]string{"--net=/proc/self/fd/3", "ip"}, args...)...)
	cmd.ExtraFiles = []*os.File{p.ns}
	out, err := cmd.CombinedOutput()
	if err != nil {
		p.t.Fatalf("ip %v: %v: %s", args, err, out)
	}
	return string(out)
}

type shown struct {
	Ifname, Operstate, Address string
	MTU                        int
	Flags                      []string
	AddrInfo                   []struct {
		Local, Address, Broadcast, Label, Scope string
		Prefixlen, Metric                       int
		NoPrefixRoute                           bool `json:"noprefixroute"`
	} `json:"addr_info"`
}

// show is what ip(8) tells of the interfaces but lo, by name.
func (p place) show() map[string]shown {
	p.t.Helper()
	var list []shown
	if err := json.Unmarshal([]byte(p.ip("-json", "address")), &list); err != nil {
		p.t.Fatal(err)
	}
	all := map[string]shown{}
	for _, s := range list {
		if s.Ifname != "lo" {
			all[s.Ifname] = s
		}
	}
	return all
}

func (s shown) up() bool { return slices.Contains(s.Flags, "UP") }

// lasting are the interface's addresses of global scope.
func (s shown) lasting() string {
	var all []string
	for _, a := range s.AddrInfo {
		if a.Scope == "global" {
			text := a.Local + "/" + strconv.Itoa(a.Prefixlen)
			for _, more := range []string{a.Broadcast, a.Address, a.Label} {
				if more != "" && more != s.Ifname {
					text += " " + more
				}
			}
			if a.Metric != 0 {
				text += " metric " + strconv.Itoa(a.Metric)
			}
			if a.NoPrefixRoute {
				text += " noprefixroute"
			}
			all = append(all, text)
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// away runs a test on a thread in a namespace of its own. It comes back, as it
// may be the process's first, whose namespaces others take for the process's.
func away(t *testing.T, f func(home, other place)) {
	testenv.Root(t)
	testenv.Tool(t, "ip")
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
	other := newPlace(t)
	home := newPlace(t)
	f(home, other)
}

func TestAddressText(t *testing.T) {
	for want, ip := range map[string][]byte{
		"10.1.2.3/24":           {10, 1, 2, 3},
		"fd00:0:0:0:0:0:0:3/24": {0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3},
	} {
		a := address{prefix: 24, attributes: map[uint16][]byte{unix.IFA_ADDRESS: ip}}
		if got := a.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestMove(t *testing.T) {
	away(t, func(home, other place) {
		home.ip("link", "add", "veth0", "mtu", "1400", "type", "veth", "peer", "name", "peer0")
		mac := home.show()["veth0"].Address
		home.ip("address", "add", "10.1.2.3/24", "broadcast", "10.1.2.255", "metric", "7", "dev", "veth0")
		home.ip("address", "add", "10.1.3.1", "peer", "10.1.3.2/32", "dev", "veth0")
		home.ip("address", "add", "10.1.4.1/24", "dev", "veth0", "label", "veth0:x", "noprefixroute")
		home.ip("address", "add", "10.1.5.1/24", "dev", "veth0", "valid_lft", "1000", "preferred_lft", "1000") // not for good
		home.ip("address", "add", "169.254.1.1/16", "dev", "veth0", "scope", "link")                           // this host's only
		home.ip("address", "add", "fd00::3/64", "dev", "veth0", "nodad")
		home.ip("link", "set", "veth0", "up")
		m, err := Move(other.ns, "veth0", "")
		if err != nil {
			t.Fatal(err)
		}
		if _, there := home.show()["veth0"]; there {
			t.Error("it is still where it was")
		}
		const kept = "10.1.2.3/24 10.1.2.255 metric 7, 10.1.3.1/32 10.1.3.2, 10.1.4.1/24 veth0:x noprefixroute, fd00::3/64"
		is := other.show()["veth0"]
		if is.lasting() != kept || is.Address != mac || is.MTU != 1400 || !is.up() {
			t.Errorf("it is %+v with\n%s, want\n%s", is, is.lasting(), kept)
		}
		if err := m.Undo(); err != nil {
			t.Fatal(err)
		}
		if was := home.show()["veth0"]; was.lasting() != kept || !was.up() || len(other.show()) != 0 {
			t.Errorf("it came back as %+v", was)
		}
	})
}

func TestMoveUnderAnotherName(t *testing.T) {
	away(t, func(home, other place) {
		home.ip("link", "add", "veth0", "type", "veth", "peer", "name", "peer0")
		home.ip("address", "add", "10.1.2.3/24", "dev", "veth0", "label", "veth0:x")
		m, err := Move(other.ns, "veth0", "eth%d")
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		again, err := Move(other.ns, "peer0", "eth%d")
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		var names []string
		for name, s := range other.show() {
			names = append(names, name+" "+s.lasting())
			if !s.up() {
				t.Errorf("%s is not up", name)
			}
		}
		slices.Sort(names)
		if len(names) != 2 || !strings.HasPrefix(names[0], "eth") || !strings.Contains(strings.Join(names, ""), "10.1.2.3/24") {
			t.Errorf("the interfaces are %q", names)
		}
	})
}

// What cannot be moved stays as it is.
func TestMoveRefused(t *testing.T) {
	away(t, func(home, other place) {
		other.ip("link", "add", "taken", "type", "veth", "peer", "name", "peer")
		home.ip("link", "add", "veth0", "type", "veth", "peer", "name", "peer0")
		home.ip("address", "add", "fd00::3/64", "dev", "veth0", "nodad")
		home.ip("link", "set", "veth0", "up")
		for _, c := range []struct {
			name, to string
			want     error
		}{
			{"missing", "", unix.ENODEV},
			{"veth0", "taken", unix.EEXIST},
			{"veth0", "bad/name", unix.EINVAL},
			{"lo", "other", unix.EINVAL},
		} {
			if m, err := Move(other.ns, c.name, c.to); !errors.Is(err, c.want) {
				t.Errorf("%s to %s: %v, %v, want %v", c.name, c.to, m, err, c.want)
			}
		}
		if s := home.show()["veth0"]; s.lasting() != "fd00::3/64" || !s.up() {
			t.Errorf("it is %+v", s)
		}
		if len(other.show()) != 2 {
			t.Errorf("the other namespace has %v", other.show())
		}
	})
}

// An interface comes back also when the process it was for has ended.
func TestUndoAfterTheEnd(t *testing.T) {
	away(t, func(home, _ place) {
		home.ip("link", "add", "veth0", "type", "veth", "peer", "name", "peer0")
		cmd := exec.Command("sleep", "1000")
		cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ns, err := os.Open(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "ns/net"))
		if err != nil {
			t.Fatal(err)
		}
		m, err := Move(ns, "veth0", "inside")
		ns.Close()
		if err := errors.Join(err, cmd.Process.Kill()); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		if err := m.Undo(); err != nil {
			t.Fatal(err)
		}
		if s, there := home.show()["veth0"]; !there || s.up() {
			t.Errorf("it is %+v, want it as before, down", s)
		}
	})
}

// FuzzMessages: whatever the kernel sends, or somebody in its place, is an
// error or is read.
func FuzzMessages(f *testing.F) {
	body := attributeString(linkBody(3, unix.IFF_UP, 0), unix.IFLA_IFNAME, "eth0")
	f.Add(message{kind: unix.RTM_NEWLINK, body: body}.append(nil))
	f.Add(message{kind: unix.RTM_NEWADDR, body: attribute([]byte{2, 24, 0x80, 0, 3, 0, 0, 0}, unix.IFA_LOCAL, []byte{10, 0, 0, 1})}.append(nil))
	f.Add(message{kind: unix.NLMSG_ERROR, flags: unix.NLM_F_ACK_TLVS | unix.NLM_F_CAPPED,
		body: attributeString(append([]byte{0xef, 0xff, 0xff, 0xff}, make([]byte, headerSize)...), unix.NLMSGERR_ATTR_MSG, "why")}.append(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		messages, err := parseMessages(data)
		if err != nil {
			return
		}
		for _, m := range messages {
			if l, err := parseLink(m.body); err == nil && len(l.name) > len(data) {
				t.Errorf("%+v", l)
			}
			if a, err := parseAddress(m.body); err == nil {
				_ = a.String()
				back, err := parseAddress(a.body(a.index, "a", "b"))
				if err != nil || back.family != a.family || back.prefix != a.prefix || back.flags != a.flags&given {
					t.Errorf("%+v comes back as %+v, %v", a, back, err)
				}
			}
			_ = parseError(m)
		}
	})
}
