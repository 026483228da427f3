package lifecycle

import (
	"fmt"
	"strings"

	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/program"
)

// A debugger is told what is done, nil where nobody wants to know.
type debugger func(message string)

func (d debugger) printf(format string, args ...any) {
	if d != nil {
		d(fmt.Sprintf(format, args...))
	}
}

// plan tells what a process will do, step by step.
func (d debugger) plan(p *plan.Plan, im *program.Image) {
	if d == nil {
		return
	}
	var text strings.Builder
	if err := p.Print(&text, false); err != nil {
		d.printf("plan: %v", err)
	}
	for line := range strings.Lines(text.String()) {
		d.printf("plan: %s", strings.TrimRight(line, "\n"))
	}
	d.printf("program: %d calls, %d bytes", len(im.Names()), len(im.ELF))
}
