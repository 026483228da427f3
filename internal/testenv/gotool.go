package testenv

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// GoTool builds a command of another module and keeps it between runs, and
// returns its path. pkg is "module/path/of/command@version".
func GoTool(t testing.TB, pkg string) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	name, version, _ := strings.Cut(path.Base(pkg), "@")
	dir := filepath.Join(cache, "tare-test", name+"-"+version)
	file := filepath.Join(dir, name)
	if _, err := os.Stat(file); err == nil {
		return file
	}
	// Built elsewhere and renamed, as other packages' tests may want the same.
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	fresh, err := os.MkdirTemp(parent, name+".new-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(fresh)
	cmd := exec.Command("go", "install", pkg)
	cmd.Env = append(os.Environ(), "GOBIN="+fresh, "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("NOT TESTED: %s cannot be built: %v\n%s", pkg, err, out)
	}
	if err := os.Rename(fresh, dir); err != nil && !os.IsExist(err) {
		if _, err := os.Stat(file); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

// S3 is a bucket on an object storage server.
type S3 struct{ Endpoint, Bucket, AccessKey, SecretKey string }

// StartS3 starts a server that speaks Amazon S3's API, with one empty bucket.
// It ends with the test.
func StartS3(t testing.TB) S3 {
	t.Helper()
	server := GoTool(t, "github.com/versity/versitygw/cmd/versitygw@v1.8.0")
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "data/bucket"), 0o755); err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	free.Close()
	s := S3{Endpoint: "http://" + addr, Bucket: "bucket", AccessKey: "tare-test", SecretKey: "not-secret"}
	cmd := exec.Command(server, "--port", addr, "--access", s.AccessKey, "--secret", s.SecretKey, "--quiet", "--keep-alive",
		"posix", filepath.Join(dir, "data"))
	Daemon(t, cmd, func() error {
		resp, err := http.Get(s.Endpoint)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode >= 500 {
			return fmt.Errorf("answered %s", resp.Status)
		}
		return nil
	})
	return s
}
