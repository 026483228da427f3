package runtimecli_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
)

// A state.json that is not what create has written: no verb believes it. Where
// one does, it waits for ever, runs a hook of somebody else's, or writes to,
// removes or ends what is the host's.
func TestAttackState(t *testing.T) {
	b := running(t, nil)
	host, untouched := b.canary("freezer.state", "cgroup.procs", "tasks", "cgroup.freeze", "memory/cgroup.procs", "linked")
	state := filepath.Join(b.root, b.id, "state.json")
	good, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	hook := `"poststop":[{"path":"/bin/sh","args":["sh","-c","touch ` + host + `/hook"]}],"poststart":[{"path":"/bin/touch","args":["touch","` + host + `/hook"]}],`
	const up = "/../../../../../../../../.."
	cgroups := func(change func(string) string) func() error {
		return func() error {
			var record map[string]any
			if err := json.Unmarshal(good, &record); err != nil {
				return err
			}
			paths := record["cgroups"].(map[string]any)
			for key, dir := range paths {
				paths[key] = change(dir.(string))
			}
			data, err := json.Marshal(record)
			return firstError(err, os.WriteFile(state, data, 0o600))
		}
	}
	replace := func(old, new string) func() error {
		return func() error {
			if !bytes.Contains(good, []byte(old)) {
				t.Fatalf("no %s in %s", old, good)
			}
			return os.WriteFile(state, bytes.Replace(good, []byte(old), []byte(new), 1), 0o600)
		}
	}
	hooked := bytes.Replace(good, []byte("{"), []byte("{"+hook), 1)
	for _, c := range []struct {
		name  string
		spoil func() error
		want  string
		late  bool // found out only where the control groups matter; kill would end the container
	}{
		{"another version", replace(`"version":1`, `"version":2`), "version 2", false},
		{"no version", replace(`"version":1,`, ``), "version 0", false},
		{"another container's", replace(`"id":"`+b.id, `"id":"../`+b.id), "want version 1 of this one", false},
		{"twice", func() error { return os.WriteFile(state, append(good[:len(good):len(good)], good...), 0o600) }, "state.json", false},
		{"half", func() error { return os.WriteFile(state, good[:len(good)/2], 0o600) }, "state.json", false},
		{"empty", func() error { return os.WriteFile(state, nil, 0o600) }, "state.json", false},
		{"too deep", replace(`{`, `{"x":`+strings.Repeat("[", 1<<19)+strings.Repeat("]", 1<<19)+`,`), "state.json", false},
		{"too large", func() error { return os.WriteFile(state, make([]byte, 2<<20), 0o600) }, "larger than", false},
		{"cgroups that lead out", cgroups(func(dir string) string { return dir + up + host }), "not a clean absolute path", false},
		{"cgroups elsewhere", cgroups(func(string) string { return host }), "below /sys/fs/cgroup", true},
		{"relative cgroups", cgroups(func(string) string { return "host" }), "not a clean absolute path", false},
		{"all cgroups", cgroups(func(string) string { return "/sys/fs/cgroup" }), "below /sys/fs/cgroup", true},
		{"a link", func() error { return os.Symlink(filepath.Join(host, "linked"), state) }, "too many levels of symbolic links", false},
		{"a pipe", func() error { return unix.Mkfifo(state, 0o600) }, "state.json", false},
		{"a directory", func() error { return os.Mkdir(state, 0o700) }, "not a regular file", false},
		{"a device", func() error { return unix.Mknod(state, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))) }, "state.json", false},
		{"linked elsewhere", func() error {
			return firstError(os.WriteFile(state, hooked, 0o600), os.Link(state, b.path("second")))
		}, "other names", false},
		{"another user's", func() error {
			return firstError(os.WriteFile(state, hooked, 0o644), os.Chown(state, ordinary, ordinary))
		}, "user 54321", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := firstError(os.Remove(state), c.spoil()); err != nil {
				t.Fatal(err)
			}
			for _, args := range [][]string{{"state", "ID"}, {"exec", "ID", "true"}, {"kill", "ID", "KILL"}, {"start", "ID"}, {"pause", "ID"},
				{"update", "--pids-limit", "100", "ID"}, {"create", "ID"}, {"delete", "ID"}, {"delete", "--force", "ID"}} {
				if c.late && (args[0] == "state" || args[0] == "kill" || args[0] == "start") {
					continue
				}
				within(t, 20*time.Second, func() {
					out, err := b.try(args...)
					if err == nil || args[0] != "create" && args[0] != "delete" && !strings.Contains(out, c.want) {
						t.Errorf("%v: %v, %s", args, err, out)
					}
				})
			}
			untouched()
			_ = os.Remove(b.path("second"))
			if err := firstError(os.RemoveAll(state), os.WriteFile(state, good, 0o600)); err != nil {
				t.Fatal(err)
			}
			if got := b.state().Status; got != "running" {
				t.Fatalf("the container is %s", got)
			}
		})
	}
}

// A bundle whose config.json is what the runtime would wait for, or read
// without end, or find elsewhere than where it is.
func TestAttackConfig(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "true")
	cmd := b.command("run", "ID")
	config := b.path("config.json")
	for name, spoil := range map[string]func() error{
		"a pipe":      func() error { return unix.Mkfifo(config, 0o600) },
		"a directory": func() error { return os.Mkdir(config, 0o700) },
		"endless":     func() error { return os.Symlink("/dev/zero", config) },
		"itself":      func() error { return os.Symlink("config.json", config) },
		"too deep":    func() error { return os.WriteFile(config, bytes.Repeat([]byte(`{"process":`), 1<<18), 0o644) },
		"large":       func() error { return os.Truncate(config, 1<<40) },
	} {
		if name != "large" {
			if err := os.Remove(config); err != nil {
				t.Fatal(err)
			}
		}
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		within(t, 20*time.Second, func() {
			again := *cmd
			if out, err := b.tryCommand(&again); err == nil || !strings.Contains(out, "config.json") {
				t.Errorf("%s: %v, %s", name, err, out)
			}
		})
		if err := firstError(os.RemoveAll(config), os.WriteFile(config, []byte("{}"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
}
