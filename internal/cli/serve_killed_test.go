package cli

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/internal/testenv"
)

// startServe runs tare serve on a directory and returns its URL.
func startServe(t *testing.T, dir string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command("tare", "serve", "--addr", "127.0.0.1:0", "--storage", dir)
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(log)
	for listening := regexp.MustCompile(`addr=(127\.0\.0\.1:[0-9]+)`); lines.Scan(); {
		if m := listening.FindStringSubmatch(lines.Text()); m != nil {
			go io.Copy(io.Discard, log)
			return cmd, "http://" + m[1]
		}
	}
	t.Fatalf("did not start: %v", cmd.Wait())
	return nil, ""
}

// request returns status, Location and body; status 0 is a broken connection.
func request(method, url, body string) (status int, location, answer string) {
	q, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return 0, "", ""
	}
	q.Header.Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
	resp, err := http.DefaultTransport.RoundTrip(q)
	if err != nil {
		return 0, "", ""
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, "", ""
	}
	return resp.StatusCode, resp.Header.Get("Location"), string(text)
}

// TestServeKilled: a registry that is killed at any moment has all that it
// acknowledged when it is back, and its uploads go on where they were.
func TestServeKilled(t *testing.T) {
	testenv.Leaks(t)
	dir := filepath.Join(t.TempDir(), "data")
	var mu sync.Mutex
	acknowledged := map[string]string{} // path → what it has to answer
	for round := range 6 {
		cmd, url := startServe(t, dir)
		_, upload, _ := request("POST", url+"/v2/up/blobs/uploads/", "")
		if status, _, _ := request("PATCH", url+upload, "first half, "); status != 202 {
			t.Errorf("PATCH: %d", status)
		}
		var pushers sync.WaitGroup
		for w := range 4 {
			pushers.Go(func() {
				for i := 0; ; i++ {
					content := strings.Repeat(fmt.Sprintf("%d %d %d ", round, w, i), 1000)
					d := digest.FromString(content).String()
					if status, _, _ := request("POST", url+"/v2/app/blobs/uploads/?digest="+d, content); status != 201 {
						return
					}
					manifest := fmt.Sprintf(`{"schemaVersion":2,"layers":[{"mediaType":"x/y","digest":%q,"size":%d}]}`, d, len(content))
					tag := fmt.Sprintf("t%d-%d-%d", round, w, i)
					mu.Lock()
					acknowledged["/v2/app/blobs/"+d] = content
					mu.Unlock()
					if status, _, _ := request("PUT", url+"/v2/app/manifests/"+tag, manifest); status != 201 {
						return
					}
					mu.Lock()
					acknowledged["/v2/app/manifests/"+tag] = manifest
					mu.Unlock()
				}
			})
		}
		time.Sleep(time.Duration(50+rand.IntN(300)) * time.Millisecond)
		cmd.Process.Kill()
		pushers.Wait()
		cmd.Wait()

		cmd, url = startServe(t, dir)
		for path, want := range acknowledged {
			if status, _, got := request("GET", url+path, ""); status != 200 || got != want {
				t.Errorf("round %d: %s: %d, %d bytes", round, path, status, len(got))
			}
		}
		whole := fmt.Sprintf("first half, second half %d", round)
		if status, _, _ := request("PUT", url+upload+"?digest="+digest.FromString(whole).String(), strings.TrimPrefix(whole, "first half, ")); status != 201 {
			t.Errorf("round %d: the upload does not go on: %d", round, status)
		}
		cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d things were acknowledged", len(acknowledged))
	if len(acknowledged) == 0 {
		t.Error("nothing was acknowledged")
	}
	checkTorn(t, dir)
}

// checkTorn looks for blobs with other content than their name says.
func checkTorn(t *testing.T, dir string) {
	files, err := filepath.Glob(filepath.Join(dir, "blobs", "sha256", "*", "*", "data"))
	if err != nil || len(files) == 0 {
		t.Error(len(files), err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil || digest.FromBytes(data).Encoded() != filepath.Base(filepath.Dir(file)) {
			t.Errorf("%s is torn: %v", file, err)
		}
	}
}
