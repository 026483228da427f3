package testenv

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// Registry starts Debian's docker-registry (CNCF distribution) on a free port
// of 127.0.0.1, empty and open to all, and returns its "127.0.0.1:PORT". It
// speaks plain HTTP and ends with the test.
func Registry(t testing.TB) (addr string) {
	t.Helper()
	return startRegistry(t, "")
}

// RegistryAuth is Registry, for one user only, by HTTP basic authentication.
func RegistryAuth(t testing.TB, user, password string) (addr string) {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(file, fmt.Appendf(nil, "%s:%s\n", user, hash), 0o600); err != nil {
		t.Fatal(err)
	}
	return startRegistry(t, fmt.Sprintf("auth: {htpasswd: {realm: tare, path: %q}}\n", file))
}

// PushLayout copies one tag of an image layout to the registry as name, which
// may carry a tag of its own ("app" or "app:v1"). It is done by skopeo, so that
// what is pulled later does not come from our own code. Indexes are copied
// whole and no digest changes. More options of "skopeo copy" may follow, such
// as "--dest-creds=user:password".
func PushLayout(t testing.TB, addr, layoutDir, tag, name string, options ...string) {
	t.Helper()
	args := []string{"--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests", "--dest-tls-verify=false"}
	args = append(args, options...)
	Run(t, "skopeo", append(args, "oci:"+layoutDir+":"+tag, "docker://"+addr+"/"+name)...)
}

const registryConfig = `version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}
http: {addr: "127.0.0.1:0"}
%s`

var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:[0-9]+)`)

func startRegistry(t testing.TB, auth string) string {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf(registryConfig, filepath.Join(dir, "data"), auth)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(Tool(t, "docker-registry"), "serve", config)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	logs := startServer(t, cmd)

	// Port 0 leaves the choice to the kernel; the log tells which it was.
	var seen strings.Builder
	lines := bufio.NewScanner(logs)
	for lines.Scan() {
		fmt.Fprintln(&seen, lines.Text())
		if m := listening.FindStringSubmatch(lines.Text()); m != nil {
			go io.Copy(io.Discard, logs) // a full pipe would stop the server
			waitReady(t, m[1])
			return m[1]
		}
	}
	t.Fatalf("docker-registry did not start:\n%s", seen.String())
	return ""
}

// startServer starts cmd, which ends at the latest with this process, and
// returns what it writes. The test's cleanup stops it.
func startServer(t testing.TB, cmd *exec.Cmd) io.Reader {
	t.Helper()
	logs, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	// A test that panics or times out runs no cleanup: then the kernel ends the
	// server. It does so when the *thread* that started it ends (prctl(2),
	// PR_SET_PDEATHSIG), so that thread stays with the server to its end.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		w.Close()
		started <- err
		if err == nil {
			cmd.Wait()
		}
		close(ended)
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			cmd.Process.Kill()
			<-ended
		}
		logs.Close()
	})
	return logs
}

// waitReady returns when the registry answers at all, with or without
// authentication.
func waitReady(t testing.TB, addr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusUnauthorized {
				return
			}
		}
		if ctx.Err() != nil {
			t.Fatalf("registry on %s is not ready: %v", addr, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
