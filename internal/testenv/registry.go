package testenv

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Registry starts Debian's docker-registry (CNCF distribution) on a free port
// of 127.0.0.1, empty and open to all, and returns its "127.0.0.1:PORT". It
// speaks plain HTTP and ends with the test.
func Registry(t testing.TB) (addr string) {
	t.Helper()
	return StartRegistry(t, RegistryOptions{})
}

// RegistryAuth is Registry, for one user only, by HTTP basic authentication.
func RegistryAuth(t testing.TB, user, password string) (addr string) {
	t.Helper()
	return StartRegistry(t, RegistryOptions{User: user, Password: password})
}

// RegistryOptions say how a CNCF distribution is to be. The zero value is Registry's.
type RegistryOptions struct {
	Command        string // of another version than Debian's
	User, Password string // basic authentication, unless empty
	TLS            Certificates
	Auth           string // the configuration's "auth", if it is another one
}

// Distribution is a version of CNCF distribution.
type Distribution struct{ Name, Command string }

// Distributions are those that our client is tested with: Debian's, and the newest.
func Distributions(t testing.TB) []Distribution {
	t.Helper()
	return []Distribution{
		{"docker-registry", Tool(t, "docker-registry")},
		{"distribution3", GoTool(t, "github.com/distribution/distribution/v3/cmd/registry@v3.1.0")},
	}
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
http: {addr: "127.0.0.1:0"%s}
%s`

var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:[0-9]+)`)

// StartRegistry starts a CNCF distribution on a free port of 127.0.0.1, empty. It
// ends with the test.
func StartRegistry(t testing.TB, o RegistryOptions) (addr string) {
	t.Helper()
	dir := t.TempDir()
	tls, auth := "", o.Auth
	if o.TLS.Cert != "" {
		tls = fmt.Sprintf(", tls: {certificate: %q, key: %q}", o.TLS.Cert, o.TLS.Key)
	}
	if o.User != "" {
		auth = fmt.Sprintf("auth: {htpasswd: {realm: tare, path: %q}}\n", passwordFile(t, o.User, o.Password))
	}
	if o.Command == "" {
		o.Command = Tool(t, "docker-registry")
	}
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf(registryConfig, filepath.Join(dir, "data"), tls, auth)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(o.Command, "serve", config)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	return startListening(t, cmd, listening)
}

// startListening starts a server on port 0, which leaves the choice to the kernel,
// and returns the address that its log tells.
func startListening(t testing.TB, cmd *exec.Cmd, listening *regexp.Regexp) (addr string) {
	t.Helper()
	logs := startServer(t, cmd)
	var seen strings.Builder
	lines := bufio.NewScanner(logs)
	for lines.Scan() {
		fmt.Fprintln(&seen, lines.Text())
		if m := listening.FindStringSubmatch(lines.Text()); m != nil {
			go io.Copy(io.Discard, logs) // a full pipe would stop the server
			return m[1]
		}
	}
	t.Fatalf("%s did not start:\n%s", filepath.Base(cmd.Path), seen.String())
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
