package linux

import (
	"fmt"
	"strconv"
	"strings"
)

// Real-time signals as users count them. The kernel's range begins at 32, but
// C libraries keep the first two for themselves, so SIGRTMIN is 34 everywhere
// a user meets it (signal(7)).
const (
	SignalRTMin = 34
	SignalRTMax = 64
)

// Signals that the runtime itself sends or waits for.
const (
	SIGHUP  = 1
	SIGINT  = 2
	SIGKILL = 9
	SIGTERM = 15
	SIGCHLD = 17
)

// Indexed by number, the same on amd64 and arm64: signal(7).
var signalNames = [...]string{
	1: "HUP", 2: "INT", 3: "QUIT", 4: "ILL", 5: "TRAP", 6: "ABRT", 7: "BUS", 8: "FPE",
	9: "KILL", 10: "USR1", 11: "SEGV", 12: "USR2", 13: "PIPE", 14: "ALRM", 15: "TERM", 16: "STKFLT",
	17: "CHLD", 18: "CONT", 19: "STOP", 20: "TSTP", 21: "TTIN", 22: "TTOU", 23: "URG", 24: "XCPU",
	25: "XFSZ", 26: "VTALRM", 27: "PROF", 28: "WINCH", 29: "IO", 30: "PWR", 31: "SYS",
}

// Signal parses a signal as runc and docker do: a number ("9"), a name with or
// without its prefix in any case ("KILL", "sigkill"), or a real-time signal
// counted from either end ("RTMIN+3", "SIGRTMAX-1").
func Signal(s string) (int, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 0 || n > SignalRTMax {
			return 0, fmt.Errorf("signal %q: not between 0 and %d", s, SignalRTMax)
		}
		return n, nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if n, ok := signalNumber(name); ok {
		return n, nil
	}
	return 0, fmt.Errorf("signal %q: unknown", s)
}

func signalNumber(name string) (int, bool) {
	if name == "" {
		return 0, false
	}
	for n, known := range signalNames {
		if known == name {
			return n, true
		}
	}
	switch name {
	case "IOT":
		return 6, true
	case "CLD":
		return SIGCHLD, true
	case "POLL":
		return 29, true
	}
	const span = SignalRTMax - SignalRTMin
	if rest, ok := strings.CutPrefix(name, "RTMIN"); ok {
		n, ok := realtimeOffset(rest, '+', span)
		return SignalRTMin + n, ok
	}
	if rest, ok := strings.CutPrefix(name, "RTMAX"); ok {
		n, ok := realtimeOffset(rest, '-', span)
		return SignalRTMax - n, ok
	}
	return 0, false
}

// realtimeOffset reads what follows RTMIN or RTMAX: nothing, or a sign and at
// most two digits.
func realtimeOffset(s string, sign byte, limit int) (int, bool) {
	if s == "" {
		return 0, true
	}
	if s[0] != sign || len(s) < 2 || len(s) > 3 || s[1] < '0' || s[1] > '9' {
		return 0, false
	}
	n, err := strconv.Atoi(s[1:])
	return n, err == nil && n <= limit
}

// SignalName is the inverse of Signal: "SIGKILL", "SIGRTMIN+3", or the number
// in digits where there is no name.
func SignalName(number int) string {
	switch {
	case number > 0 && number < len(signalNames):
		return "SIG" + signalNames[number]
	case number == SignalRTMin:
		return "SIGRTMIN"
	case number > SignalRTMin && number <= SignalRTMax:
		return "SIGRTMIN+" + strconv.Itoa(number-SignalRTMin)
	}
	return strconv.Itoa(number)
}
