package clients

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
)

// writers are the verbs of our own client that write what came from a registry to
// places that people name.
var writers = map[string]func(reg, out string) []string{
	"sync to a layout":    func(reg, out string) []string { return []string{"sync", reg + "/team/small", "oci:" + out} },
	"sync to directories": func(reg, out string) []string { return []string{"sync", reg + "/team/small", "dir:" + out} },
	"artifact pull":       func(reg, out string) []string { return []string{"artifact", "pull", "-o", out, reg + "/team/model:v1"} },
}

// modelBytes is more than the full disk has.
const modelBytes = 12 << 20

// TestTare kills our own client, and lets it run out of space: what is there then is
// whole, and the next attempt works.
func TestTare(t *testing.T) {
	if !testenv.PrivateMounts(t) {
		return
	}
	s, tool, dir := testenv.Serve(t), testenv.Command(t, "tare"), t.TempDir()
	tare := func(args ...string) *exec.Cmd {
		cmd := exec.Command(tool, append([]string{"--quiet", "--root", filepath.Join(dir, "root")}, args...)...)
		cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir)
		return cmd
	}
	must := func(cmd *exec.Cmd) {
		t.Helper()
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
		}
	}
	model := make([]byte, modelBytes)
	rand.Read(model)
	if err := os.WriteFile(filepath.Join(dir, "model.bin"), model, 0o644); err != nil {
		t.Fatal(err)
	}
	push := tare("artifact", "push", "--artifact-type", "application/vnd.test.model", s.Addr+"/team/model:v1", "model.bin")
	push.Dir = dir
	must(push)
	testenv.PushLayout(t, s.Addr, filepath.Join(testenv.Images(t), "multiarch"), "latest", "team/small:v1")

	for name, command := range writers {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out")
			if name == "artifact pull" {
				if err := os.Mkdir(out, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for i := range 8 {
				cmd := tare(command(s.Addr, out)...)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Duration(5+i*15) * time.Millisecond)
				cmd.Process.Kill()
				cmd.Wait()
				wholeFiles(t, out, model)
			}
			again := command(s.Addr, out)
			if name == "artifact pull" { // the last may have been through
				_ = os.Remove(filepath.Join(out, "model.bin"))
			}
			must(tare(again...))
			wholeFiles(t, out, model)

			disk := t.TempDir()
			testenv.Tmpfs(t, disk, 4<<20)
			full := tare(command(s.Addr, disk+"/out")...)
			if name == "artifact pull" {
				full = tare(command(s.Addr, disk)...)
			}
			if text, err := full.CombinedOutput(); err == nil || !strings.Contains(string(text), "no space left on device") {
				t.Errorf("on a full disk: %v\n%s", err, text)
			}
			wholeFiles(t, disk, model)
			if lost := nameless(t, disk); lost > 256<<10 {
				t.Errorf("%d bytes of the disk are in no file", lost)
			}
		})
	}
}

// TestTareKilledPushing kills our own client while it sends to a registry: a name that is
// there then leads to all of what it names, and the next attempt works.
func TestTareKilledPushing(t *testing.T) {
	s, tool, dir := testenv.Serve(t), testenv.Command(t, "tare"), t.TempDir()
	run := func(args ...string) *exec.Cmd {
		cmd := exec.Command(tool, append([]string{"--quiet", "--root", filepath.Join(dir, "root")}, args...)...)
		cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir)
		return cmd
	}
	model := filepath.Join(dir, "model.bin")
	if err := os.WriteFile(model, bytes.Repeat([]byte("model"), modelBytes/5), 0o644); err != nil {
		t.Fatal(err)
	}
	images := "oci:" + filepath.Join(testenv.Images(t), "multiarch") + ":latest"
	for name, command := range map[string]func(to string) []string{
		"copy": func(to string) []string { return []string{"copy", "--all", images, "docker://" + to} },
		"artifact push": func(to string) []string {
			return []string{"artifact", "push", "--artifact-type", "application/vnd.test.model", to, model}
		},
	} {
		t.Run(name, func(t *testing.T) {
			whole := func(to string) {
				t.Helper()
				if out, err := run("copy", "--all", "docker://"+to, "oci:"+t.TempDir()+"/back:v1").CombinedOutput(); err != nil {
					t.Errorf("%s is not whole: %v\n%s", to, err, out)
				}
			}
			there := 0
			for i := range 8 {
				repo := "team/" + strings.ReplaceAll(name, " ", "-") + "-" + strconv.Itoa(i)
				to := s.Addr + "/" + repo + ":v1"
				cmd := run(command(to)...)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Duration(5+i*15) * time.Millisecond)
				cmd.Process.Kill()
				cmd.Wait()
				resp, err := http.Get("http://" + s.Addr + "/v2/" + repo + "/manifests/v1")
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					there++
					whole(to)
				}
				if out, err := run(command(to)...).CombinedOutput(); err != nil {
					t.Errorf("the next attempt: %v\n%s", err, out)
				}
				whole(to)
			}
			t.Logf("%d of 8 had got through", there)
		})
	}
}

// nameless is how much of a file system is used for more than the files that it has.
func nameless(t *testing.T, disk string) (lost int64) {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(disk, &st); err != nil {
		t.Fatal(err)
	}
	lost = int64(st.Blocks-st.Bfree) * st.Bsize
	err := filepath.WalkDir(disk, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || strings.Contains(path, ".tare") { // what is unfinished counts as nothing
			return err
		}
		info, err := entry.Info()
		if err == nil {
			lost -= info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return lost
}

// wholeFiles checks that what has the name of a blob, or of the model, is that.
func wholeFiles(t *testing.T, dir string, model []byte) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.Contains(path, ".tare") {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(content)
		switch name := entry.Name(); {
		case name == "model.bin":
			if !bytes.Equal(content, model) {
				t.Errorf("%s has %d bytes of %d", path, len(content), len(model))
			}
		case len(name) == 64 && name != hex.EncodeToString(sum[:]):
			t.Errorf("%s has other content", path)
		}
		return nil
	})
	if err != nil && !os.IsNotExist(err) {
		t.Error(err)
	}
}
