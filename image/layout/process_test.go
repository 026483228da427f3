package layout_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layout"
)

// The tests in this file start the test binary again, as other processes that
// work on the same store. This variable tells a child what to do, with which
// number, and in which store.
const childVar = "TARE_LAYOUT_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVar) == "" {
		os.Exit(m.Run())
	}
	if err := child(strings.SplitN(os.Getenv(childVar), " ", 3)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func child(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	s, err := layout.Open(args[2], layout.Options{Create: true})
	if err != nil {
		return err
	}
	switch ctx := context.Background(); args[0] {
	case "churn":
		return churn(ctx, s, n)
	case "tag":
		return tagMany(ctx, s, n)
	case "collect":
		return collect(ctx, s, n)
	}
	return errors.New("what shall I do?")
}

func startChild(t *testing.T, do string, n int, s *layout.Store) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %s", childVar, do, n, s.Dir()))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, &out
}

// churnLayer is the i-th layer of those that children write: always the same,
// so that what one has begun another resumes.
func churnLayer(i int) []byte {
	data := make([]byte, 300_000+i*77_777)
	for j := range data {
		data[j] = byte(j>>8 ^ j*i)
	}
	return data
}

// churn writes, names, forgets and collects for ever.
func churn(ctx context.Context, s *layout.Store, seed int) error {
	rnd := rand.New(rand.NewPCG(uint64(seed), 0))
	for {
		p, err := s.Begin(ctx)
		if err != nil {
			return err
		}
		layer := churnLayer(rnd.IntN(8))
		if err := ingestSlowly(ctx, p, layer); err != nil {
			return err
		}
		desc, err := putImage(ctx, p, layer)
		if err != nil {
			return err
		}
		if err := p.Tag(ctx, fmt.Sprintf("127.0.0.1:5000/churn:%d", rnd.IntN(4)), desc); err != nil {
			return err
		}
		p.Close()
		switch rnd.IntN(4) {
		case 0:
			if err := s.Untag(ctx, fmt.Sprintf("127.0.0.1:5000/churn:%d", rnd.IntN(4))); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		case 1:
			if _, err := s.GC(ctx, layout.GCOptions{PartialAge: time.Hour}); err != nil {
				return err
			}
		}
	}
}

// ingestSlowly writes in many pieces, to be killed in between.
func ingestSlowly(ctx context.Context, p *layout.Session, data []byte) error {
	in, err := p.Ingest(ctx, describe("a/b", data))
	if err != nil {
		return err
	}
	defer in.Close()
	for rest := data[in.Offset():]; len(rest) > 0; {
		n, err := in.Write(rest[:min(len(rest), 10_000)])
		if err != nil {
			return err
		}
		rest = rest[n:]
	}
	return in.Commit()
}

func TestKilledAtAnyMoment(t *testing.T) {
	ctx := context.Background()
	s := openStore(t, t.TempDir(), layout.Options{Create: true})
	resumable := 0
	for i := range 20 {
		cmd, out := startChild(t, "churn", i, s)
		time.Sleep(time.Duration(20+rand.IntN(200)) * time.Millisecond)
		cmd.Process.Kill()
		if err := cmd.Wait(); out.Len() > 0 {
			t.Fatalf("the child failed by itself: %v\n%s", err, out)
		}
		report := checkClean(t, s)
		names, err := s.List(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			if _, err := image.Load(ctx, s, n.Desc); err != nil {
				t.Errorf("%s: %v", n.Name, err)
			}
		}
		partials := files(t, s, ".tare/partial")
		resumable += len(partials)
		t.Logf("kill %d: %d blobs, %d names, %d partial", i, report.Blobs, len(names), len(partials))
	}
	if resumable == 0 {
		t.Log("no kill hit a blob in the middle")
	}
	// The next run works, on what the killed have left.
	p := begin(t, s)
	for i := range 8 {
		if err := ingestSlowly(ctx, p, churnLayer(i)); err != nil {
			t.Error(err)
		}
	}
	p.Close()
	if _, err := s.GC(ctx, layout.GCOptions{}); err != nil {
		t.Error(err)
	}
	checkClean(t, s)
	if left := files(t, s, ".tare/partial"); len(left) > 0 {
		t.Errorf("left behind after gc: %v", left)
	}
}

const tagsEach = 25

// tagMany makes images of layers that others make too, and names of its own.
func tagMany(ctx context.Context, s *layout.Store, me int) error {
	for i := range tagsEach {
		p, err := s.Begin(ctx)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("own-%d:%d", me, i)
		if err := ingestSlowly(ctx, p, churnLayer((me+i)%4)); err != nil { // nothing leads to it: a race for it with the collector
			return err
		}
		desc, err := putImage(ctx, p, []byte(name))
		if err != nil {
			return err
		}
		if err := errors.Join(p.Tag(ctx, name, desc), p.Tag(ctx, "shared", desc)); err != nil {
			return err
		}
		p.Close()
		time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond) // the collector waits for a moment without a session
		if i%5 == 4 {                                               // let go of what a collector then removes under the others
			if err := s.Untag(ctx, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// collect runs GC n times, and says how much it has removed.
func collect(ctx context.Context, s *layout.Store, n int) error {
	removed := 0
	for range n {
		report, err := s.GC(ctx, layout.GCOptions{})
		if err != nil {
			return err
		}
		removed += len(report.Removed)
		time.Sleep(2 * time.Millisecond)
	}
	fmt.Printf("gc removed %d blobs", removed)
	return nil
}

func TestManyProcesses(t *testing.T) {
	ctx := context.Background()
	s := openStore(t, t.TempDir(), layout.Options{Create: true, NoSync: true})
	type running struct {
		cmd *exec.Cmd
		out *bytes.Buffer
	}
	var all []running
	const taggers = 4
	for i := range taggers {
		cmd, out := startChild(t, "tag", i, s)
		all = append(all, running{cmd, out})
	}
	cmd, out := startChild(t, "collect", 20, s)
	for _, r := range append(all, running{cmd, out}) {
		if err := r.cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, r.out)
		}
	}
	t.Log(out)
	checkClean(t, s)
	names, err := s.List(ctx)
	if want := taggers*tagsEach*4/5 + 1; err != nil || len(names) != want {
		t.Errorf("%d names, want %d: %v", len(names), want, err)
	}
	for _, n := range names {
		if _, err := image.Load(ctx, s, n.Desc); err != nil {
			t.Errorf("%s: %v", n.Name, err)
		}
	}
}

func runQuietly(name string, args ...string) error { return exec.Command(name, args...).Run() }
