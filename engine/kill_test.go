package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/testenv"
)

// childVar makes the test binary a program. If it is "unpack" or "verb" that is
// unpackChild or verbChild; else it runs one container: DIR, image and command follow as
// arguments.
const childVar = "TARE_TEST_ENGINE_CHILD"

// keepVar names the child's container, and has it kept.
const keepVar = "TARE_TEST_ENGINE_KEEP"

func TestMain(m *testing.M) {
	if os.Getenv(childVar) == "" {
		os.Exit(m.Run())
	}
	run := child
	switch os.Getenv(childVar) {
	case "unpack":
		run = unpackChild
	case "verb":
		run = verbChild
	}
	status, err := run(os.Args[1], os.Args[2], os.Args[3:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = ExitStatus(err)
	}
	os.Exit(status)
}

func child(dir, image string, args []string) (int, error) {
	e, err := Open(Options{Root: dir + "/root", RunRoot: dir + "/run"})
	if err != nil {
		return 0, err
	}
	if os.Getenv(childVar) == "repack" { // DIR, bundle and name
		_, err := e.Repack(context.Background(), image, args[0], RepackOptions{})
		return 0, err
	}
	id := os.Getenv(keepVar)
	return e.Run(context.Background(), RunOptions{Image: image, ID: id, Keep: id != "", Args: args, Stdio: [3]*os.File{nil, os.Stdout, os.Stderr}})
}

// startChild starts a child whose output can be read.
func startChild(t testing.TB, dir, image string, args ...string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", append([]string{dir, image}, args...)...)
	cmd.Env = append(os.Environ(), childVar+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewReader(out)
}

// TestKilledAtRandom kills with SIGKILL, at a random moment of pulling,
// unpacking, creating, running and removing. The next run must work, and leave
// no trace of either.
func TestKilledAtRandom(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	b := serve(t, bigImage(t))
	dir := t.TempDir()
	e := openEngine(t, dir)
	forget := func() {
		if _, err := e.Remove(t.Context(), b.name()); err != nil && !errors.Is(err, ErrNoImage) {
			t.Error(err)
		}
		if _, err := e.GC(t.Context(), GCOptions{}); err != nil {
			t.Error(err)
		}
	}
	lasts := func() time.Duration {
		begin := time.Now()
		cmd, out := startChild(t, dir, b.name(), "sleep", "0.1")
		if text, _ := io.ReadAll(out); cmd.Wait() != nil {
			t.Fatalf("%v\n%s", cmd.ProcessState, text)
		}
		return time.Since(begin)
	}
	cold, warm := lasts(), lasts()
	for i := range 10 {
		most := warm
		if i%2 == 0 {
			forget()
			most = cold
		}
		cmd, _ := startChild(t, dir, b.name(), "sleep", "0.1")
		after := rand.N(most)
		time.Sleep(after)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		out := mustOutput(t, e, RunOptions{Image: b.name(), Args: []string{"sh", "-c", "wc -c </big"}})
		if out != "8388608\n" {
			t.Errorf("after a kill at %v of %v: %q", after, most, out)
		}
		checkClean(t, e)
	}
	forget()
	checkEmpty(t, e)
}

// TestSignals: they are the container's while it runs, and before they end us.
func TestSignals(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	dir := t.TempDir()
	e := openEngine(t, dir)
	b := serve(t, bigImage(t))
	testenv.Hangups(t)

	// While a layer is on its way.
	desc := b.layer(t, 1)
	asked := make(chan struct{}, 10)
	b.answer[desc.Digest] = func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(readBlob(t, b, desc)[:1<<20])
		w.(http.Flusher).Flush()
		asked <- struct{}{}
		<-r.Context().Done()
	}
	cmd, out := startChild(t, dir, b.name(), "true")
	<-asked
	if err := cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(out)
	err := cmd.Wait()
	if cmd.ProcessState.ExitCode() != 128+int(unix.SIGINT) || !strings.Contains(string(text), "interrupted") {
		t.Errorf("interrupted pull: %v, %q", err, text)
	}
	checkClean(t, e)
	delete(b.answer, desc.Digest)

	// While the container runs.
	for _, sig := range []syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP} {
		cmd, out = startChild(t, dir, b.name(), "sh", "-c",
			"trap 'exit 9' TERM; trap 'exit 10' INT; trap 'exit 11' HUP; echo ready; while :; do sleep 0.05; done")
		if line, err := out.ReadString('\n'); line != "ready\n" {
			t.Fatalf("%q, %v", line, err)
		}
		time.Sleep(50 * time.Millisecond) // the container may run before we know: then it is still ours to end
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		_, _ = io.ReadAll(out)
		want := map[syscall.Signal]int{unix.SIGTERM: 9, unix.SIGINT: 10, unix.SIGHUP: 11}[sig]
		if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != want {
			t.Errorf("%v: %v, want exit status %d", sig, cmd.ProcessState, want)
		}
		checkClean(t, e)
	}

	// At any moment, and again and again, as process 1 of a container ignores
	// signals before it has set its traps.
	for range 6 {
		cmd, out = startChild(t, dir, b.name(), "sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.01; done")
		ended := make(chan struct{})
		go func() {
			_, _ = io.ReadAll(out)
			_ = cmd.Wait() // the state tells
			close(ended)
		}()
		time.Sleep(rand.N(60 * time.Millisecond))
		for tries := 0; ; tries++ {
			_ = cmd.Process.Signal(unix.SIGTERM) // it may have ended
			select {
			case <-ended:
			case <-time.After(20 * time.Millisecond):
				if tries < 500 {
					continue
				}
				t.Error("does not end by SIGTERM")
				_ = cmd.Process.Kill()
			}
			break
		}
		early := cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() == unix.SIGTERM // before there was anything to clean up
		if status := cmd.ProcessState.ExitCode(); status != 9 && status != 128+int(unix.SIGTERM) && !early {
			t.Errorf("%v, want exit status 9 of the container, or that of the signal before there was one", cmd.ProcessState)
		}
		checkClean(t, e)
	}
}

// TestContextEndsRun: a caller without signals ends a container by its context.
func TestContextEndsRun(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	e := newEngine(t)
	mustOutput(t, e, RunOptions{Image: small(t), Args: []string{"true"}})
	for _, after := range []time.Duration{0, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 300 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		begin := time.Now()
		status, err := e.Run(ctx, RunOptions{Image: small(t), Args: []string{"sleep", "100"}})
		cancel()
		if status == 0 && err == nil || time.Since(begin) > 10*time.Second {
			t.Errorf("cancelled after %v: status %d, %v, in %v", after, status, err, time.Since(begin))
		}
		checkClean(t, e)
	}
}
