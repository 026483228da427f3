package runtimecli

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
)

// A logger writes messages as engines read them: one line each, either
// level=… msg=… or a JSON object with level, msg and time.
type logger struct {
	file  *os.File // nil for standard error
	json  bool
	debug bool
}

func newLogger(g global) (*logger, error) {
	l := &logger{debug: g.debug, json: g.logFormat == "json"}
	if g.logFormat != "json" && g.logFormat != "text" {
		return nil, fmt.Errorf("--log-format %q: want text or json", g.logFormat)
	}
	if g.logFile != "" {
		f, err := os.OpenFile(g.logFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
		if err != nil {
			return nil, fmt.Errorf("--log: %w", err)
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

func (l *logger) write(level, message string) {
	out := l.file
	if out == nil {
		out = os.Stderr
	}
	now := time.Now().UTC().Format(time.RFC3339)
	message = strings.TrimSpace(message)
	if l.json {
		line, err := json.Marshal(struct {
			Level string `json:"level"`
			Msg   string `json:"msg"`
			Time  string `json:"time"`
		}{level, message, now})
		if err == nil {
			fmt.Fprintf(out, "%s\n", line)
		}
		return
	}
	fmt.Fprintf(out, "time=%q level=%s msg=%q\n", now, level, message)
}
