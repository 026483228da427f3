package runtimecli_test

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/testenv"
)

// lastError runs tare-runtime as containerd, dockerd and conmon do, with the
// log in a JSON file, and returns what they take for the reason of its failure:
// the message of the last error there.
func (b *bundle) lastError(args ...string) string {
	b.t.Helper()
	log := filepath.Join(b.t.TempDir(), "log.json")
	cmd := b.command(append([]string{"--log", log, "--log-format", "json"}, args...)...)
	out, err := os.Create(filepath.Join(b.t.TempDir(), "output"))
	if err != nil {
		b.t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err == nil {
		b.t.Fatalf("%v: no error", args)
	}
	f, err := os.Open(log)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	var message string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var line struct {
			Level, Msg string
			Time       time.Time
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			b.t.Fatalf("%v: %s: %v", args, lines.Text(), err)
		}
		if line.Level == "error" {
			message = line.Msg
		}
	}
	return message
}

func hasAny(message string, texts ...string) bool {
	for _, text := range texts {
		if strings.Contains(strings.ToLower(message), text) {
			return true
		}
	}
	return false
}

// What engines make of a message. The texts are those that they look for
// (containerd: cmd/containerd-shim-runc-v2/process/utils.go; Docker:
// daemon/errors.go; Podman: libpod/oci_util.go).

func containerdSaysGone(message string) bool {
	return hasAny(message, "os: process already finished", "container not running", "no such process", "does not exist")
}

func dockerStatus(message string) int {
	switch {
	case hasAny(message, "permission denied", "is a directory"):
		return 126
	case hasAny(message, "not a directory", "executable file not found", "no such file or directory"):
		return 127
	}
	return 128
}

func podmanStatus(message string) int {
	switch {
	case hasAny(message, "permission denied", "operation not permitted"):
		return 126
	case hasAny(message, "executable file not found in", "no such file or directory"):
		return 127
	}
	return 125
}

func TestMessagesOfStates(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "exit 0")
	for _, verb := range []string{"state", "start", "kill", "delete", "pause", "resume", "ps", "events", "update"} {
		if m := b.lastError(verb, "ID"); !containerdSaysGone(m) || !strings.HasSuffix(m, "container does not exist") {
			t.Errorf("%s of none: %s", verb, m)
		}
	}
	if m := b.lastError("exec", "ID", "true"); !strings.Contains(m, "container does not exist") {
		t.Error("exec in none:", m)
	}
	b.do("create", "ID")
	if m := b.lastError("create", "ID"); !strings.HasSuffix(m, "container with given ID already exists") {
		t.Error("create twice:", m)
	}
	b.do("start", "ID")
	for deadline := time.Now().Add(10 * time.Second); b.state().Status != specs.StateStopped && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	for _, verb := range []string{"kill", "pause"} {
		if m := b.lastError(verb, "ID"); !containerdSaysGone(m) {
			t.Errorf("%s of a stopped one: %s", verb, m)
		}
	}
	if m := b.lastError("exec", "ID", "true"); !strings.Contains(m, "cannot exec in a stopped container") {
		t.Error("exec in a stopped one:", m)
	}
	if m := b.lastError("start", "ID"); !strings.Contains(m, "cannot start a container that has stopped") {
		t.Error("start of a stopped one:", m)
	}
	b.do("kill", "--all", "ID", "KILL") // engines make sure
	b.do("delete", "ID")
}

func TestMessagesOfPrograms(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	for _, c := range []struct {
		args           []string
		text           string
		docker, podman int
	}{
		{[]string{"nope"}, `exec: "nope": executable file not found in $PATH`, 127, 127},
		{[]string{"/nope"}, `exec: "/nope": no such file or directory`, 127, 127},
		{[]string{"/bin/busybox/nope"}, `exec: "/bin/busybox/nope": not a directory`, 127, 125},
		{[]string{"/plain"}, `exec: "/plain": permission denied`, 126, 126},
		{[]string{"/etc"}, `exec: "/etc": permission denied`, 126, 126},
	} {
		b := newBundle(t, "exec sleep 100")
		if err := os.WriteFile(filepath.Join(b.dir, "rootfs/plain"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		check := func(verb, message string) {
			if !strings.Contains(message, c.text) || dockerStatus(message) != c.docker || podmanStatus(message) != c.podman {
				t.Errorf("%s of %q: %s: Docker exits with %d, Podman with %d", verb, c.args, message, dockerStatus(message), podmanStatus(message))
			}
		}
		b.do("create", "ID")
		b.do("start", "ID")
		check("exec", b.lastError(append([]string{"exec", "ID"}, c.args...)...))
		b.do("delete", "--force", "ID")
		b.Process.Args = c.args
		if c.args[0] == "/etc" { // execve is the first to see that
			b.do("create", "ID")
			check("start", b.lastError("start", "ID"))
			b.do("delete", "--force", "ID")
		} else {
			check("create", b.lastError("create", "ID"))
		}
		check("run", b.lastError("run", "ID"))
	}
}

// Whatever a mount lacks, Docker's users are told about the host path.
func TestMessagesOfMounts(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := newBundle(t, "true")
	own := b.Mounts
	b.Mounts = append(own[:len(own):len(own)], specs.Mount{Destination: "/data", Source: "/nowhere/at/all", Options: []string{"bind"}})
	if m := b.lastError("create", "ID"); dockerStatus(m) != 127 || podmanStatus(m) != 127 {
		t.Error("no source:", m)
	}
	b.Mounts[len(b.Mounts)-1] = specs.Mount{Destination: "/bin/busybox", Source: "/etc", Options: []string{"bind"}}
	if m := b.lastError("create", "ID"); dockerStatus(m) != 127 {
		t.Error("a directory on a file:", m)
	}
}
