package cli

import (
	"bufio"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/tare-oci/tare/internal/testenv"
)

// TestServeStops: a signal ends the registry in good order, with status 0.
func TestServeStops(t *testing.T) {
	testenv.Leaks(t)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		dir := filepath.Join(t.TempDir(), "data")
		cmd := exec.Command("tare", "serve", "--addr", "127.0.0.1:0", "--storage", dir)
		log, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var seen strings.Builder
		listening := regexp.MustCompile(`msg=listening addr=(127\.0\.0\.1:[0-9]+) tls=false storage=` + dir)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			fmt.Fprintln(&seen, lines.Text())
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				conn, err := net.Dial("tcp", m[1])
				if err != nil {
					t.Error(err)
				} else {
					conn.Close()
				}
				cmd.Process.Signal(sig)
			}
		}
		if err := cmd.Wait(); err != nil || !strings.Contains(seen.String(), "msg=stopped") {
			t.Errorf("%v: %v\n%s", sig, err, &seen)
		}
	}
}
