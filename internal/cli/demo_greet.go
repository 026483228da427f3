package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// greetVerb is what runs in demo's container.
const greetVerb = "demo-greet"

func (a *app) greetCommand() *cobra.Command {
	return &cobra.Command{
		Use: greetVerb, Hidden: true, Args: arguments(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			fmt.Fprint(a.stdout, greeting())
			return nil
		},
	}
}

// greeting tells what a process sees of the container that it is in.
func greeting() string {
	host, err := os.Hostname()
	if err != nil {
		host = err.Error()
	}
	status := procStatus()
	return fmt.Sprintf(`Hello from inside a container.
pid %d of %s in sight; host name: %s
uid %d, gid %d; capabilities: %s; no new privileges: %s
root file system: %s; seccomp: %s
`,
		os.Getpid(), plural(processCount(), "process"), printable(host),
		os.Getuid(), os.Getgid(), capabilityState(status["CapEff"]), map[string]string{"0": "no", "1": "yes"}[status["NoNewPrivs"]],
		rootState(), map[string]string{"0": "off", "2": "filter"}[status["Seccomp"]])
}

// procStatus reads /proc/self/status.
func procStatus() map[string]string {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil
	}
	fields := map[string]string{}
	for l := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(l, ":"); ok {
			fields[key] = strings.TrimSpace(value)
		}
	}
	return fields
}

func processCount() (n int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	for _, e := range entries {
		if strings.Trim(e.Name(), "0123456789") == "" {
			n++
		}
	}
	return n
}

// rootState tries rather than reads options.
func rootState() string {
	f, err := os.CreateTemp("/", ".tare-")
	switch {
	case err == nil:
		f.Close()
		os.Remove(f.Name())
		return "writable"
	case errors.Is(err, syscall.EROFS):
		return "read-only"
	}
	return "not ours to write"
}

func capabilityState(mask string) string {
	if strings.Trim(mask, "0") == "" {
		return "none"
	}
	return mask
}
