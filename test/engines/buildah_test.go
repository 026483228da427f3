package engines

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tare-oci/tare/internal/testenv"
)

func TestBuildah(t *testing.T) {
	if !testenv.PrivateMachine(t) {
		return
	}
	testenv.Leaks(t, "buildah")
	dir, runtime, tool := t.TempDir(), testenv.Runtime(t), testenv.Tool(t, "buildah")
	b := engine{t, func(args ...string) *exec.Cmd {
		if len(args) > 0 && (args[0] == "bud" || args[0] == "run") {
			args = append([]string{args[0], "--runtime", runtime, "--isolation", "oci"}, args[1:]...)
		}
		cmd := exec.Command(tool, append([]string{"--root", dir + "/root", "--runroot", "/run/tare-buildah", "--storage-driver", "overlay"}, args...)...)
		cmd.Env = append(os.Environ(), "TMPDIR="+dir) // where caches of RUN --mount stay
		return cmd
	}}
	b.run("pull", "--quiet", "docker-archive:"+testenv.BaseImage(t))
	t.Cleanup(func() { b.run("rm", "--all") })
	for _, part := range []struct {
		name string
		test func(engine)
	}{
		{"bud", buildahBud},
		{"failures", buildahFailures},
		{"run", buildahRun},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(b.in(t)) })
	}
}

// containerfile has what a RUN can ask of the runtime.
const containerfile = `FROM docker.io/library/base AS first
ENV A=built
WORKDIR /work
RUN echo $A $(id -u):$(id -g) $PWD >one
USER app
RUN id -u >/tmp/two
USER root
SHELL ["/bin/sh", "-e", "-c"]
RUN --mount=type=tmpfs,destination=/scratch touch /scratch/x && awk '$2 == "/scratch" { print $3 }' /proc/mounts >three
RUN --mount=type=bind,source=context,destination=/ctx cat /ctx >four
RUN --mount=type=cache,destination=/cache touch /cache/kept
RUN --mount=type=cache,destination=/cache ls /cache >five
RUN --mount=type=secret,id=word cat /run/secrets/word >six
FROM docker.io/library/base
COPY --from=first /work /tmp/two /made/
RUN cd /made && cat one two three four five six | tr '\n' ' ' >all
`

func buildahBud(b engine) {
	dir := b.write("Containerfile", containerfile)
	if err := os.WriteFile(filepath.Join(dir, "context"), []byte("context\n"), 0o644); err != nil {
		b.Fatal(err)
	}
	secret := filepath.Join(b.write("word", "secret\n"), "word")
	b.run("bud", "--quiet", "--secret", "id=word,src="+secret, "--memory", "256m", "--tag", "made", dir)
	id := b.run("from", "--pull-never", "made")
	b.says("built 0:0 /work 1000 tmpfs context kept secret ", "run", id, "cat", "/made/all")
	b.run("rm", id)
}

func buildahFailures(b engine) {
	for status, line := range map[int]string{7: "exit 7", 127: "no-such-command", 126: "/etc/passwd"} {
		dir := b.write("Containerfile", "FROM docker.io/library/base\nRUN "+line+"\n")
		if _, stderr, got := b.outcome("", "bud", "--tag", "bad", dir); got != status {
			b.Errorf("RUN %s: exit status %d; want %d\n%s", line, got, status, stderr)
		}
	}
}

func buildahRun(b engine) {
	id := b.run("from", "--pull-never", "docker.io/library/base")
	defer b.run("rm", id)
	b.says("hello", "run", id, "echo", "hello")
	if got := b.input("piped", "run", id, "cat"); got != "piped" {
		b.Errorf("stdin: %q", got)
	}
	if got := b.terminal("", "run", "--tty", id, "tty"); !strings.Contains(got, "/dev/pts/0") {
		b.Errorf("on a terminal: %q", got)
	}
	b.says("1000", "run", "--user", "app", id, "id", "-u")
	b.says("box", "run", "--hostname", "box", id, "hostname")
	volume := b.write("f", "in a volume\n")
	b.says("in a volume", "run", "--volume", volume+":/v:ro", id, "cat", "/v/f")
	b.mentions("CapEff:\t00000000800415fb", "run", "--cap-drop", "CAP_MKNOD", "--cap-add", "CAP_NET_ADMIN", id, "grep", "CapEff", "/proc/self/status")
	b.fails(3, "", "run", id, "sh", "-c", "exit 3")
}
