package criu

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestWire(t *testing.T) {
	var sub, m message
	sub.int(1, 3)
	sub.int(2, 17)
	sub.int(4, 1)
	m.int(1, int64(version))
	m.bool(2, true)
	m.message(10, sub)
	m.int(7, -5)
	m.string(9, "ä")
	if want := "\x08\x0a\x10\x01\x52\x06\x08\x03\x10\x11\x20\x01\x38\xfb\xff\xff\xff\xff\xff\xff\xff\xff\x01\x4a\x02ä"; string(m) != want {
		t.Errorf("got  %q\nwant %q", m, want)
	}
	r, err := m.response()
	if err != nil || r.op != version || !r.success || r.version != (Version{3, 17, 1}) || r.errno != -5 || r.errText != "ä" {
		t.Errorf("%+v, %v", r, err)
	}
	if v := r.version; v.String() != "3.17.1" || !v.AtLeast(3, 17) || v.AtLeast(3, 18) || !v.AtLeast(2, 99) {
		t.Error(v)
	}
	for i := 1; i < len(m); i++ {
		if _, err := m[:i].response(); err == nil && i != 2 && i != 4 && i != 12 && i != 23 {
			t.Errorf("cut after %d bytes: no error", i)
		}
	}
}

func FuzzResponse(f *testing.F) {
	f.Add([]byte("\x08\x06\x10\x01\x2a\x0d\x0a\x09post-dump\x10\x07"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := message(data).response(); err == nil && r.success {
			_ = r.op.String() + r.version.String()
		}
	})
}

// stand is a CRIU of a few lines of shell, which says what it is told to.
func stand(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "criu"), []byte("#!/bin/sh\ntest \"$*\" = \"swrk 3\" || exit 9\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestConversation(t *testing.T) {
	if _, err := exec.LookPath("dd"); err != nil {
		t.Fatal(err)
	}
	say := func(m message) string {
		octal := ""
		for _, b := range m {
			octal += "\\" + string([]byte{'0' + b>>6, '0' + b>>3&7, '0' + b&7})
		}
		return "printf '" + octal + "' >&3\n"
	}
	const hear = "dd bs=64k count=1 <&3 2>/dev/null >>$HEARD\n"
	var note, about, done, restored message
	about.string(1, "post-restore")
	about.int(2, 7)
	note.int(1, int64(notify))
	note.bool(2, true)
	note.message(5, about)
	restored.int(1, 42)
	done.int(1, int64(Restore))
	done.bool(2, true)
	done.message(4, restored)
	heard := filepath.Join(t.TempDir(), "heard")
	t.Setenv("HEARD", heard)
	stand(t, hear+say(note)+hear+say(done)+"echo output; exit 0\n")
	images, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer images.Close()
	var notices []Notice
	c := Call{Operation: Restore, Options: Options{Images: images, Log: "restore.log", Cgroups: Unset, Inherit: []Inherited{{"pipe:[1]", 0}}},
		Notice: func(n Notice) error { notices = append(notices, n); return nil }}
	pid, err := c.Do(t.Context())
	if err != nil || pid != 42 || len(notices) != 1 || notices[0] != (Notice{Script: "post-restore", PID: 7}) {
		t.Errorf("%d, %v, %v", pid, err, notices)
	}
	want := string(c.request()) + string(goOn(true))
	if got, err := os.ReadFile(heard); err != nil || string(got) != want {
		t.Errorf("criu heard %q, %v\nwant %q", got, err, want)
	}
	// A caller that does not want to go on.
	bad := errors.New("no")
	c.Notice = func(Notice) error { return bad }
	if _, err := c.Do(t.Context()); !errors.Is(err, bad) {
		t.Error(err)
	}
}

func TestFailures(t *testing.T) {
	dir := t.TempDir()
	images, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer images.Close()
	if err := os.WriteFile(filepath.Join(dir, "dump.log"), []byte("(0.1) Error (criu/tun.c:85): tun\n(0.2) Error (criu/x.c:1): why\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := Call{Operation: Dump, Options: Options{Images: images, Log: "dump.log"}}
	stand(t, "dd bs=64k count=1 <&3 >/dev/null 2>&1; printf '\\010\\001\\020\\000\\070\\020' >&3\n")
	if _, err := c.Do(t.Context()); err == nil || !strings.Contains(err.Error(), "criu dump: failed: device or resource busy: (criu/x.c:1): why") {
		t.Error(err)
	}
	stand(t, "exit 3\n")
	if _, err := c.Do(t.Context()); err == nil {
		t.Error("no error of one that ends")
	}
	stand(t, "dd bs=64k count=1 <&3 >/dev/null 2>&1; printf '\\010' >&3\n")
	if _, err := c.Do(t.Context()); !errors.Is(err, errTruncated) {
		t.Error(err)
	}
	for s, want := range map[string]CgroupMode{"": Unset, "soft": 3, "ignore": 0} {
		if m, err := ParseCgroupMode(s); m != want || err != nil {
			t.Errorf("%q: %v, %v", s, m, err)
		}
	}
	if _, err := ParseCgroupMode("hard"); err == nil {
		t.Error("a mode that is none")
	}
}
