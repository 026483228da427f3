package runtimecli

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/tare-oci/tare/internal/quickjson"
)

// A logger writes messages as engines read them: one line each, either
// level=… msg=… or a JSON object with level, msg and time. containerd takes the
// msg of the last line of level error for the reason of a failure.
type logger struct {
	file  *os.File // nil for standard error
	json  bool
	debug bool
}

// newLogger returns a logger that can be used also where there is an error.
func newLogger(g global) (*logger, error) {
	l := &logger{debug: g.debug, json: g.logFormat == "json"}
	if !l.json && g.logFormat != "text" && g.logFormat != "" {
		return l, errors.New("invalid log-format: " + g.logFormat)
	}
	if g.logFile != "" {
		f, err := os.OpenFile(g.logFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
		if err != nil {
			return l, err
		}
		l.file = f
	}
	return l, nil
}

func (l *logger) close() {
	if l.file != nil {
		l.file.Close()
	}
}

// error logs what ended the command, and tells the terminal too where the log
// is a file.
func (l *logger) error(err error) {
	l.write("error", err.Error())
	if l.file != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

func (l *logger) warn(message string) { l.write("warning", message) }

// debugger returns what logs the details, nil unless they are wanted.
func (l *logger) debugger() func(message string) {
	if !l.debug {
		return nil
	}
	return func(message string) { l.write("debug", message) }
}

func (l *logger) write(level, message string) {
	out := l.file
	if out == nil {
		out = os.Stderr
	}
	now := time.Now().UTC().Format(time.RFC3339)
	message = strings.TrimSpace(message)
	if l.json {
		line := quickjson.AppendString([]byte(`{"level":`), level)
		line = quickjson.AppendString(append(line, `,"msg":`...), message)
		line = quickjson.AppendString(append(line, `,"time":`...), now)
		_, _ = out.Write(append(line, '}', '\n')) // nobody is left to tell
		return
	}
	_, _ = fmt.Fprintf(out, "time=%q level=%s msg=%q\n", now, level, message) // the same
}
