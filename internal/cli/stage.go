package cli

import (
	"fmt"
	"strings"
	"time"
)

// stages prints what is done step by step, each with its time:
//
//	✓ push     127.0.0.1:37613/demo/hello:latest                        12 ms
//	✗ pull     digest mismatch
type stages struct {
	out   func(string)
	now   func() time.Time
	color bool
	utf8  bool
	width int // up to the times
}

const stageNameWidth = 9

// do runs one stage and prints what it says about itself: a line, and perhaps
// details below it.
func (s *stages) do(name string, run func() (what, details string, err error)) error {
	start := s.now()
	what, details, err := run()
	took := s.now().Sub(start)
	if err != nil {
		s.print(s.mark("✗", "failed", red), name, "", "")
		return err
	}
	s.print(s.mark("✓", "ok", green), name, what, durationText(took))
	for l := range strings.Lines(details) {
		s.out(s.paint(fmt.Sprintf("    %*s  %s", stageNameWidth, "", strings.TrimRight(l, "\n")), dim) + "\n")
	}
	return nil
}

// skip prints why a stage is left out.
func (s *stages) skip(name, why string) { s.print(s.mark("-", "-", yellow), name, why, "") }

func (s *stages) print(mark, name, what, took string) {
	text := fmt.Sprintf("  %s %s  %-*s  %9s", mark, s.paint(fmt.Sprintf("%-*s", stageNameWidth, name), bold), s.width, what, took)
	s.out(strings.TrimRight(text, " ") + "\n")
}

func (s *stages) mark(sign, ascii string, st style) string {
	if !s.utf8 {
		return s.paint(fmt.Sprintf("%-6s", ascii), st)
	}
	return s.paint(sign, st)
}

func (s *stages) paint(text string, st style) string { return paint(text, st, s.color) }
