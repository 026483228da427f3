package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// server is a registry under measurement.
type server struct {
	cmd *exec.Cmd
	url string
}

func startTare(binary, dir string, sync bool) (*server, error) {
	mode := map[bool]string{true: "on", false: "off"}[sync]
	return startServer(exec.Command(binary, "serve", "--addr", "127.0.0.1:0", "--storage", dir, "--sync", mode), `addr=(127\.0\.0\.1:[0-9]+)`)
}

const distributionConfig = `version: 0.1
log: {level: info, accesslog: {disabled: false}}
storage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}
http: {addr: "127.0.0.1:0"}
`

func startDistribution(program, dir string) (*server, error) {
	config := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil, distributionConfig, filepath.Join(dir, "data")), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "serve", config)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	return startServer(cmd, `listening on (127\.0\.0\.1:[0-9]+)`)
}

// startZot starts zot, which does not tell the port it is on.
func startZot(program, dir string) (*server, error) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := free.Addr().(*net.TCPAddr)
	free.Close()
	config := filepath.Join(dir, "config.json")
	text := fmt.Appendf(nil, `{"distSpecVersion": "1.1.0", "storage": {"rootDirectory": %q}, "http": {"address": "127.0.0.1", "port": "%d"}, "log": {"level": "info"}}`,
		filepath.Join(dir, "data"), addr.Port)
	if err := os.WriteFile(config, text, 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "serve", config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{cmd, "http://" + addr.String()}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if conn, err := net.Dial("tcp", addr.String()); err == nil {
			return s, conn.Close()
		}
	}
	s.stop()
	return nil, errors.New("zot did not start")
}

// serveFromMemory answers every request with one manifest.
func serveFromMemory() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	body := bytes.Repeat([]byte("x"), handlerBytes)
	fmt.Fprintln(os.Stderr, "listening on", listener.Addr())
	http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", manifestType)
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.Write(body)
	}))
}

// handlerBytes is about the size of a small image's manifest.
const handlerBytes = 500

// measureHandler measures the handler that answers from memory.
func measureHandler(ctx context.Context, results map[string][]float64, names *[]string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	s, err := startServer(exec.Command(self, "-handler"), `listening on (127\.0\.0\.1:[0-9]+)`)
	if err != nil {
		return err
	}
	defer s.stop()
	l := &load{server: s, ctx: ctx}
	l.get("/", handlerBytes, smallRequests, 8)
	_, cpu := l.timed(func() { l.get("/", handlerBytes, smallRequests, 8) })
	const name = "a handler from memory, µs CPU"
	if !slices.Contains(*names, name) {
		*names = append(*names, name)
	}
	results[name] = append(results[name], float64(cpu.Microseconds())/smallRequests)
	return l.err
}

// startServer waits until the log tells the address.
func startServer(cmd *exec.Cmd, listening string) (*server, error) {
	log, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	pattern := regexp.MustCompile(listening)
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		if m := pattern.FindStringSubmatch(lines.Text()); m != nil {
			go io.Copy(io.Discard, log)
			return &server{cmd, "http://" + m[1]}, nil
		}
	}
	return nil, errors.Join(fmt.Errorf("%s did not start", cmd.Path), cmd.Wait())
}

func (s *server) stop() {
	s.cmd.Process.Signal(syscall.SIGTERM)
	s.cmd.Wait()
}

// cpu is the processor time the server has used, to the kernel's tick of 10 ms.
func (s *server) cpu() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, errors.New("unreadable stat")
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// memory is a line of the server's status in MB: VmRSS or VmHWM.
func (s *server) memory(line string) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for l := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(l, line+":"); ok {
			n, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
			return n * 1024 / 1e6, err
		}
	}
	return 0, fmt.Errorf("no %s", line)
}

// forgetPeak sets VmHWM back (proc(5), clear_refs).
func (s *server) forgetPeak() error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.cmd.Process.Pid), []byte("5"), 0)
}
