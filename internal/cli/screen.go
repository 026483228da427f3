package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// style is how a piece of text is shown, as the parameters of the terminal's
// SGR sequence (ECMA-48, 8.3.117); empty is plain.
type style string

const (
	plain  style = ""
	bold   style = "1"
	dim    style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
	cyan   style = "36"
)

// piece is text in one style. A line is made of them, so that its width is
// known before any escape sequence comes in.
type piece struct {
	text  string
	style style
}

type line []piece

// render is the line cut to the width, and the columns it takes.
func (l line) render(width int, color bool) (string, int) {
	var b strings.Builder
	used := 0
	for _, p := range l {
		text := p.text
		if n := utf8.RuneCountInString(text); n > width-used {
			text = string([]rune(text)[:max(0, width-used)])
		}
		used += utf8.RuneCountInString(text)
		b.WriteString(paint(text, p.style, color))
	}
	return b.String(), used
}

func paint(text string, s style, color bool) string {
	if s == plain || !color || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// screen redraws a block of lines in place at the bottom of a terminal. Between
// two drawings the cursor is in the first column below the block and visible:
// whatever ends the program, the terminal is as it was.
type screen struct {
	w     io.Writer
	size  func() (columns, rows int)
	color bool
	drawn []int // the width of each line of the block, in columns
}

// draw replaces the block.
func (s *screen) draw(lines []line) {
	columns, rows := s.size()
	var b strings.Builder
	b.WriteString("\x1b[?25l") // no cursor running over the lines
	b.WriteString(s.top(columns))
	if len(lines) >= rows { // what is above the top of the terminal can't be replaced
		lines = lines[len(lines)-rows+1:]
	}
	s.drawn = s.drawn[:0]
	for _, l := range lines {
		text, width := l.render(columns-1, s.color)
		b.WriteString(text + "\x1b[K\r\n")
		s.drawn = append(s.drawn, width)
	}
	b.WriteString("\x1b[J\x1b[?25h")
	io.WriteString(s.w, b.String())
}

// top goes to where the block begins. A terminal that has become narrower has
// broken its lines into several.
func (s *screen) top(columns int) string {
	up := 0
	for _, width := range s.drawn {
		up += max(1, (width+columns-1)/columns)
	}
	if up == 0 {
		return "\r"
	}
	return fmt.Sprintf("\r\x1b[%dA", up)
}

// leave keeps the block as it is: the next one begins below.
func (s *screen) leave() { s.drawn = s.drawn[:0] }

// terminalSize asks the terminal each time: it may have changed.
func terminalSize(f *os.File) func() (columns, rows int) {
	return func() (int, int) {
		columns, rows, err := term.GetSize(int(f.Fd()))
		if err != nil || columns < 2 || rows < 2 {
			return 80, 24
		}
		return columns, rows
	}
}

// canRedraw reports whether f is a terminal that understands cursor movement.
func canRedraw(f *os.File, getenv func(string) string) bool {
	return isTerminal(f) && getenv("TERM") != "dumb" && getenv("TERM") != ""
}

// wantsColor follows no-color.org.
func wantsColor(f *os.File, getenv func(string) string) bool {
	return canRedraw(f, getenv) && getenv("NO_COLOR") == ""
}

// speaksUTF8 is how programs tell whether a terminal shows more than ASCII
// (locale(7): the first of these that is set decides). Where none is set, as
// after sudo or ssh, terminals of today do.
func speaksUTF8(getenv func(string) string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToLower(getenv(name)); v != "" {
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return true
}

// isTerminal says whether people are at the other end of a file.
func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }
