package testenv

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRegistryServesWhatSkopeoPushed(t *testing.T) {
	Leaks(t)
	images := Images(t)
	addr := RegistryAuth(t, "gopher", "burrow")
	PushLayout(t, addr, filepath.Join(images, "small"), "latest", "lib/small:v1", "--dest-creds=gopher:burrow")

	for _, c := range []struct {
		password string
		status   int
	}{{"burrow", 200}, {"wrong", 401}} {
		req, err := http.NewRequest("GET", "http://"+addr+"/v2/lib/small/tags/list", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("gopher", c.password)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != c.status {
			t.Errorf("password %q: status %d, %v; want %d", c.password, resp.StatusCode, err, c.status)
		}
		if c.status == 200 && !strings.Contains(string(body), `"v1"`) {
			t.Errorf("tags: %s", body)
		}
	}
}

func TestRegistryIsOpenWithoutAuth(t *testing.T) {
	Leaks(t)
	resp, err := http.Get("http://" + Registry(t) + "/v2/_catalog")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("status %s", resp.Status)
	}
}

// recorder is a test that must fail: it takes note of the failures.
type recorder struct {
	testing.TB
	errors  []string
	cleanup []func()
}

func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}
func (r *recorder) Error(args ...any) { r.errors = append(r.errors, fmt.Sprint(args...)) }
func (r *recorder) Cleanup(f func())  { r.cleanup = append(r.cleanup, f) }
func (r *recorder) end() (found string) {
	for i := len(r.cleanup) - 1; i >= 0; i-- {
		r.cleanup[i]()
	}
	return strings.Join(r.errors, "\n")
}

func TestLeaksFindsAndRemoves(t *testing.T) {
	if !PrivateMounts(t) {
		return
	}
	r := &recorder{TB: t}
	Leaks(r)
	tmp := os.TempDir()

	// An orphan: its parent, the shell, ends at once.
	out, err := exec.Command("sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for range 2 { // one over the other
		if err := unix.Mount("x", dir, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
	}
	name := Name(t)
	cgroup := makeCgroup(t, name)
	if err := os.WriteFile(filepath.Join(tmp, "forgotten"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	held, err := os.Open(filepath.Join(tmp, "forgotten"))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	memfd, err := unix.MemfdCreate("program", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(memfd)

	found := r.end()
	for _, want := range []string{
		"process " + strings.TrimSpace(string(out)) + " (sleep", " on " + dir + ": tmpfs", "cgroup " + cgroup,
		"temporary file " + held.Name(), "open file " + fmt.Sprint(held.Fd()), "/memfd:program",
	} {
		if !strings.Contains(found, want) {
			t.Errorf("not found: %s", want)
		}
	}
	if n := strings.Count(found, "left behind"); n != 7 {
		t.Errorf("%d things found, 7 were left", n)
	}
	if t.Failed() {
		t.Log(found)
	}
	for _, path := range []string{cgroup, tmp} {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
	t.Setenv("TMPDIR", filepath.Dir(tmp))
	clean := &recorder{TB: t}
	Leaks(clean)
	if found := clean.end(); found != "" {
		t.Errorf("a test that leaves nothing: %s", found)
	}
}

// makeCgroup makes an empty cgroup in any hierarchy that lets us.
func makeCgroup(t *testing.T, name string) string {
	t.Helper()
	_, roots, err := leakScope{private: true}.mounts()
	if err != nil {
		t.Fatal(err)
	}
	for _, root := range roots {
		dir := filepath.Join(root, name)
		if os.Mkdir(dir, 0o755) == nil {
			t.Cleanup(func() { os.Remove(dir) })
			return dir
		}
	}
	t.Fatalf("no cgroup hierarchy to make a cgroup in: %q", roots)
	return ""
}

func TestTmpfsIsSmallAndPrivate(t *testing.T) {
	if !PrivateMounts(t) {
		return
	}
	Leaks(t)
	dir := t.TempDir()
	Tmpfs(t, dir, 64<<10)
	if err := os.WriteFile(filepath.Join(dir, "f"), make([]byte, 1<<20), 0o600); err == nil {
		t.Error("1 MiB fits in 64 KiB")
	}
	host, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", os.Getppid()))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(host), dir) {
		t.Error("the first process sees the mount")
	}
}

func TestPrivateMountsOfASubtest(t *testing.T) {
	t.Run("a (b)", func(t *testing.T) {
		if !PrivateMounts(t) {
			return
		}
		Tmpfs(t, t.TempDir(), 64<<10)
	})
}

func TestParseStatTakesAnyName(t *testing.T) {
	stat := "7 (a) R (b) S 3 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 0 0"
	p, ok := parseStat(7, stat)
	if want := (process{pid: 7, parent: 3, started: "12345", name: "a) R (b"}); !ok || p != want {
		t.Errorf("got %+v, %t; want %+v", p, ok, want)
	}
	for _, bad := range []string{"", "7 (a", "7 (a) S", ")("} {
		if p, ok := parseStat(7, bad); ok {
			t.Errorf("%q: %+v", bad, p)
		}
	}
}
