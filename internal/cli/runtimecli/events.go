package runtimecli

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"sync"
	"time"

	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/lifecycle"
)

// An event is one line of what events prints, as runc's types.Event.
type event struct {
	Type string        `json:"type"` // stats or oom
	ID   string        `json:"id"`
	Data *cgroup.Stats `json:"data,omitempty"`
}

func eventsCommand() command {
	return command{name: "events", args: "ID", short: "print what a container uses, and when it runs out of memory", min: 1, max: 1,
		flags: func(flags *flag.FlagSet) func(*call) (int, error) {
			once := flags.Bool("stats", false, "print what it uses now and end")
			interval := flags.Duration("interval", 5*time.Second, "`time` between two reports")
			return func(c *call) (int, error) {
				if *interval <= 0 {
					return 1, errors.New("duration interval must be greater than 0")
				}
				w, err := c.store().Watch(c.args[0])
				if err != nil {
					return 1, err
				}
				out := &eventWriter{id: c.args[0], encoder: json.NewEncoder(os.Stdout)}
				if *once {
					return 0, out.stats(w)
				}
				go func() {
					for range time.Tick(*interval) {
						if err := out.stats(w); err != nil {
							c.log.error(err)
						}
					}
				}()
				return 0, w.OOMs(c, func() {
					if err := out.write("oom", nil); err != nil {
						c.log.error(err)
					}
				})
			}
		}}
}

// eventWriter writes events, one at a time.
type eventWriter struct {
	id      string
	mutex   sync.Mutex
	encoder *json.Encoder
}

func (w *eventWriter) write(kind string, data *cgroup.Stats) error {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.encoder.Encode(event{kind, w.id, data})
}

func (w *eventWriter) stats(of *lifecycle.Watch) error {
	s, err := of.Stats()
	if err != nil {
		return err
	}
	return w.write("stats", s)
}
