package cli

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// transferState says how far a blob is.
type transferState int

const (
	waiting   transferState = iota
	present                 // was here before
	fetching                // bytes come in
	unpacking               // they are all here, and go out
	verifying               // they are all there, and are looked at once more
	reusing                 // the same, of one that was here before
	done
)

// transferred is a blob on its way into the store, or from there into a tree.
type transferred struct {
	id        string // what people see of its digest
	state     transferState
	doneBytes int64
	sizeBytes int64
	started   time.Time
	took      time.Duration
	speed     meter
}

// progress shows how blobs come in: on a terminal as bars that are redrawn in
// place, otherwise as a line when a blob begins and one when it ends. Its
// methods may be called concurrently.
type progress struct {
	now    func() time.Time
	screen *screen // nil where lines are wanted
	utf8   bool
	away   bool // to somewhere else, not to here
	line   func(format string, args ...any)

	mu        sync.Mutex
	title     string
	transfers []*transferred
	changed   bool
	ended     bool // what is not done now will not be
	stop      chan struct{}
	stopped   sync.WaitGroup
}

const redrawInterval = 100 * time.Millisecond

// newProgress starts the display; close ends it.
func (a *app) newProgress() *progress {
	p := &progress{now: time.Now, line: a.info, stop: make(chan struct{}), utf8: speaksUTF8(a.getenv)}
	if a.quiet {
		p.line = func(string, ...any) {}
		return p
	}
	if a.logFormat == "text" && canRedraw(a.stderr, a.getenv) {
		p.screen = &screen{w: a.stderr, size: terminalSize(a.stderr), color: wantsColor(a.stderr, a.getenv)}
		p.stopped.Go(p.redraw)
	}
	return p
}

// redraw draws what has changed, until the display is closed. The time goes on
// and the terminal may be resized, so while something runs all changes.
func (p *progress) redraw() {
	tick := time.NewTicker(redrawInterval)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-tick.C:
			p.mu.Lock()
			if p.changed || p.running() {
				p.draw()
			}
			p.mu.Unlock()
		}
	}
}

func (p *progress) draw() {
	columns, rows := p.screen.size()
	p.screen.draw(p.lines(columns, rows))
	p.changed = false
}

// close draws the end and leaves it on the terminal.
func (p *progress) close() {
	if p.screen == nil || p.stop == nil {
		return
	}
	close(p.stop)
	p.stopped.Wait()
	p.stop, p.ended = nil, true
	if len(p.transfers) > 0 || p.title != "" {
		p.draw()
	}
	p.screen.leave()
}

// begin says whose blobs come now.
func (p *progress) begin(title string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.title == title {
		return
	}
	p.title, p.changed = title, true
	if p.screen == nil {
		p.line("%s", title)
	}
}

// set says how far a blob is.
func (p *progress) set(id string, state transferState, doneBytes, sizeBytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changed = true
	i := slices.IndexFunc(p.transfers, func(t *transferred) bool { return t.id == id })
	if i < 0 {
		i = len(p.transfers)
		p.transfers = append(p.transfers, &transferred{id: id})
	}
	t := p.transfers[i]
	before := t.state
	now := p.now()
	t.doneBytes, t.sizeBytes = doneBytes, max(sizeBytes, t.sizeBytes)
	if state == before {
		return
	}
	t.state = state
	switch state {
	case fetching, unpacking, verifying, reusing:
		if t.started.IsZero() {
			t.started = now
		}
		t.speed = meter{at: now, bytes: doneBytes}
	case done:
		if !t.started.IsZero() {
			t.took = now.Sub(t.started)
		}
	}
	if words := p.words(t); p.screen == nil && words != "" {
		p.line("  %s: %s", t.id, words)
	}
}

// words tells the state in a log, where a beginning and an end are enough.
func (p *progress) words(t *transferred) string {
	switch t.state {
	case present:
		return p.presentWords()
	case fetching:
		if p.away {
			return "copying " + sizeText(t.sizeBytes)
		}
		return "fetching " + sizeText(t.sizeBytes)
	case done:
		return "done in " + durationText(t.took)
	}
	return ""
}

func (p *progress) presentWords() string {
	if p.away {
		return "there already"
	}
	return "here already"
}

func (p *progress) running() bool {
	return slices.ContainsFunc(p.transfers, func(t *transferred) bool {
		return t.state == fetching || t.state == unpacking || t.state == verifying || t.state == reusing
	})
}

// lines is the display for a terminal of that size. Where it is too low for all
// blobs, those that are done go first, then those that wait.
func (p *progress) lines(columns, rows int) []line {
	room := max(1, rows-4) // the title, the sum, what is left out, and the cursor's
	shown := p.transfers
	for _, drop := range []transferState{present, done, waiting, reusing, verifying, unpacking, fetching} {
		for i := 0; len(shown) > room && i < len(shown); {
			if shown[i].state == drop {
				shown = slices.Concat(shown[:i], shown[i+1:])
				continue
			}
			i++
		}
	}
	lines := []line{{{p.title, bold}}}
	now := p.now()
	for _, t := range shown {
		t.speed.update(now, t.doneBytes)
		lines = append(lines, p.transferLine(t, columns))
	}
	if hidden := len(p.transfers) - len(shown); hidden > 0 {
		lines = append(lines, line{{fmt.Sprintf("  and %d more", hidden), dim}})
	}
	if len(p.transfers) > 1 && p.running() && !p.ended {
		lines = append(lines, p.sumLine(columns))
	}
	return lines
}

// The columns of a blob's line: its name, the bar, the bytes, the rest.
const (
	nameWidth  = 2 + 12 + 2
	bytesWidth = 17
	restWidth  = 22
	maxBar     = 40
	minBar     = 5
)

func (p *progress) transferLine(t *transferred, columns int) line {
	l := line{{fmt.Sprintf("  %-12s  ", t.id), plain}}
	barStyle, bytes, rest, restStyle := cyan, sizeText(t.doneBytes)+" / "+sizeText(t.sizeBytes), "", plain
	share := fraction(t.doneBytes, t.sizeBytes)
	switch t.state {
	case waiting:
		bytes, rest, restStyle = sizeText(t.sizeBytes), "waiting", dim
	case present:
		share, barStyle, bytes, rest, restStyle = 1, dim, sizeText(t.sizeBytes), p.presentWords(), dim
	case fetching:
		rest = t.speed.String()
		if p.ended {
			barStyle, rest, restStyle = dim, "stopped", red
		}
	case unpacking, reusing:
		barStyle, rest = yellow, "unpacking"
	case verifying:
		barStyle, rest = yellow, "verifying"
	case done:
		share, barStyle, bytes, rest, restStyle = 1, green, sizeText(t.sizeBytes), durationText(t.took), green
	}
	l = append(l, p.bar(share, columns, barStyle, bytes)...)
	return append(l, piece{"  " + rest, restStyle})
}

// sumLine is all blobs together.
func (p *progress) sumLine(columns int) line {
	var doneBytes, sizeBytes, rate int64
	for _, t := range p.transfers {
		sizeBytes += t.sizeBytes
		switch t.state {
		case done, present:
			doneBytes += t.sizeBytes
		default:
			doneBytes += t.doneBytes
			rate += int64(t.speed.rate)
		}
	}
	rest := ""
	if rate > 0 && sizeBytes > doneBytes {
		left := time.Duration(float64(sizeBytes-doneBytes) / float64(rate) * float64(time.Second))
		rest = fmt.Sprintf("%s/s, %s left", sizeText(rate), left.Round(time.Second))
	}
	l := line{{fmt.Sprintf("  %-12s  ", "all"), bold}}
	l = append(l, p.bar(fraction(doneBytes, sizeBytes), columns, bold, sizeText(doneBytes)+" / "+sizeText(sizeBytes))...)
	return append(l, piece{"  " + rest, plain})
}

func fraction(doneBytes, sizeBytes int64) float64 {
	if sizeBytes <= 0 {
		return 0
	}
	return min(1, float64(doneBytes)/float64(sizeBytes))
}

// bar takes the room that the other columns leave, with the bytes behind it; on
// a narrow terminal a percentage has to do.
func (p *progress) bar(share float64, columns int, s style, bytes string) line {
	width := min(maxBar, columns-nameWidth-bytesWidth-restWidth-3)
	if width < minBar {
		return line{{fmt.Sprintf("%3.0f%%", 100*share), s}}
	}
	full, head, empty := "━", "╸", "─"
	if !p.utf8 {
		full, head, empty = "=", ">", "-"
	}
	n := int(share * float64(width))
	bar, rest := strings.Repeat(full, n), strings.Repeat(empty, width-n)
	if 0 < n && n < width {
		bar = strings.Repeat(full, n-1) + head
	}
	return line{{bar, s}, {rest, dim}, {fmt.Sprintf("%*s", bytesWidth, bytes), plain}}
}

// meter measures bytes per second, smoothed over about a second.
type meter struct {
	at    time.Time
	bytes int64
	rate  float64
}

func (m *meter) update(now time.Time, bytes int64) {
	elapsed := now.Sub(m.at).Seconds()
	if elapsed < 0.05 {
		return
	}
	current := float64(bytes-m.bytes) / elapsed
	if weight := min(1, elapsed); m.rate == 0 {
		m.rate = current
	} else {
		m.rate += weight * (current - m.rate)
	}
	m.at, m.bytes = now, bytes
}

func (m *meter) String() string {
	if m.rate < 1 {
		return ""
	}
	return sizeText(int64(m.rate)) + "/s"
}
