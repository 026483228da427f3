package measure

import (
	"context"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestCompareInterleaves(t *testing.T) {
	var order []string
	note := func(s string) func(context.Context, int) error {
		return func(context.Context, int) error { order = append(order, s); return nil }
	}
	cases := []Case{
		{Name: "a", Setup: note("sa"), Func: note("a"), Cleanup: note("ca")},
		{Name: "b", Command: func(ctx context.Context, _ int) (*exec.Cmd, error) {
			order = append(order, "b")
			return exec.CommandContext(ctx, "true"), nil
		}},
	}
	const runs = 8
	table, err := Compare(t.Context(), runs, cases)
	if err != nil {
		t.Fatal(err)
	}
	// Each round has both, and not always the same one first.
	first := map[string]int{}
	for round := range slices.Chunk(order, 4) {
		switch s := strings.Join(round, " "); s {
		case "sa a ca b", "b sa a ca":
			first[round[0]]++
		default:
			t.Errorf("a round is %s", s)
		}
	}
	if len(order) != 4*(runs+1) || len(first) != 2 {
		t.Errorf("%d steps, first were %v", len(order), first)
	}
	if got := table.Rows[1].Median(); got.Wall <= 0 || len(table.Rows[1].Samples) != runs {
		t.Errorf("command row %+v", table.Rows[1])
	}
}

func TestStagesComeInTurn(t *testing.T) {
	cases := make([]Case, 9)
	for i := range cases {
		cases[i].Stage = i / 3
	}
	firsts := map[int]bool{}
	for run := range 20 {
		mixed := order(run, cases)
		if !slices.IsSortedFunc(mixed, func(a, b int) int { return a/3 - b/3 }) || len(mixed) != len(cases) {
			t.Errorf("round %d is %v", run, mixed)
		}
		firsts[mixed[0]] = true
	}
	if len(firsts) != 3 {
		t.Errorf("the first of a round is one of %v", firsts)
	}
}

func TestSequencesRunSideBySide(t *testing.T) {
	dir := t.TempDir()
	// Each sequence's second command waits for the other's first: one after the other, they would never end.
	meet := func(own, other string) []*exec.Cmd {
		return []*exec.Cmd{
			exec.CommandContext(t.Context(), "touch", dir+"/"+own),
			exec.CommandContext(t.Context(), "sh", "-c", "until test -e "+dir+"/"+other+"; do sleep 0.01; done"),
		}
	}
	table, err := CompareCold(t.Context(), 1, []Case{{Name: "two", Sequences: func(context.Context, int) ([][]*exec.Cmd, error) {
		return [][]*exec.Cmd{meet("a", "b"), meet("b", "a")}, nil
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if s := table.Rows[0].Samples[0]; s.Wall <= 0 || s.CPU <= 0 {
		t.Errorf("sample %+v", s)
	}
}

func TestPeakIsTheCommandsOwn(t *testing.T) {
	mine := make([]byte, 64<<20)
	for i := 0; i < len(mine); i += 4096 {
		mine[i] = 1
	}
	s, err := Run(exec.CommandContext(t.Context(), "true"))
	if err != nil || s.PeakBytes != 0 {
		t.Errorf("peak of true %d (%v): ours, inherited", s.PeakBytes, err)
	}
	s, err = Run(exec.CommandContext(t.Context(), "dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=1"))
	if err != nil || s.PeakBytes < 256<<20 {
		t.Errorf("peak of a command with 256 MiB: %d (%v)", s.PeakBytes, err)
	}
	_ = mine[0]
}

func TestCompareFailureNamesCaseAndCleansUp(t *testing.T) {
	cleaned := false
	_, err := Compare(t.Context(), 1, []Case{{
		Name: "broken",
		Command: func(ctx context.Context, _ int) (*exec.Cmd, error) {
			return exec.CommandContext(ctx, "sh", "-c", "echo reason >&2; exit 3"), nil
		},
		Cleanup: func(context.Context, int) error { cleaned = true; return errors.New("and this") },
	}})
	if err == nil || !cleaned {
		t.Fatalf("err %v, cleaned %v", err, cleaned)
	}
	for _, part := range []string{"broken", "reason", "exit status 3", "and this"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q lacks %q", err, part)
		}
	}
	if _, err := Compare(t.Context(), 1, []Case{{Name: "empty"}}); err == nil {
		t.Error("a case without work was accepted")
	}
}

func TestTable(t *testing.T) {
	table := Table{Rows: []Row{
		{Name: "ours", Samples: []Sample{{Wall: 1e6, CPU: 2e6}, {Wall: 3e6, CPU: 2e6}}},
		{Name: "theirs", Samples: []Sample{{Wall: 5e6, CPU: 4e6, PeakBytes: 2e6}, {Wall: 3e6, CPU: 4e6, PeakBytes: 2e6}}},
	}}
	if got := table.Rows[0].Median().Wall; got != 2*time.Millisecond {
		t.Errorf("median %v", got)
	}
	wall, cpu, err := table.Ratio("theirs")
	if err != nil || wall != 0.5 || cpu != 0.5 {
		t.Errorf("ratio %v %v %v", wall, cpu, err)
	}
	if _, _, err := table.Ratio("nobody"); err == nil {
		t.Error("unknown row has a ratio")
	}
	want := `median of 2      wall ms     cpu ms   peak MB   wall ratio    cpu ratio
ours                2.00       2.00         -            1            1
theirs              4.00       4.00       2.0        0.500        0.500
(ratio: ours divided by the line's; below 1, ours is the faster)
`
	if got := table.String(); got != want {
		t.Errorf("table:\n%s\nwant:\n%s", got, want)
	}
}
