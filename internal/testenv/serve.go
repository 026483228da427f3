package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// Served is a registry of our own, "tare serve", in a process of its own.
type Served struct {
	Addr string // 127.0.0.1:PORT
	// What SecureServe asks for: a user, and the authority of its certificate.
	User, Password, CA string
}

// Serve starts tare serve, empty, open to all and without TLS. It ends with the test.
func Serve(t testing.TB) Served {
	t.Helper()
	return Served{Addr: startServe(t, "")}
}

// Mirror starts tare serve before another registry, whose images are below a prefix
// there, or have the names that they have, if that is empty. Clients of mirrors call
// that registry namespace.
func Mirror(t testing.TB, of Served, prefix, namespace string) Served {
	t.Helper()
	return Served{Addr: startServe(t, fmt.Sprintf("[[upstream]]\nprefix = %q\nurl = %q\nnamespace = %q\n", prefix, "http://"+of.Addr, namespace))}
}

// SecureServe starts tare serve with TLS, for one user only.
func SecureServe(t testing.TB) Served {
	t.Helper()
	s := Served{User: "me", Password: "pass:word"}
	certificates := MakeCertificates(t)
	s.CA = certificates.CA
	s.Addr = startServe(t, fmt.Sprintf("[tls]\ncert = %q\nkey = %q\n[auth]\npasswords = %q\n",
		certificates.Cert, certificates.Key, passwordFile(t, s.User, s.Password)))
	return s
}

// passwordFile is what htpasswd -B would write.
func passwordFile(t testing.TB, user, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(file, fmt.Appendf(nil, "%s:%s\n", user, hash), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

var serving = regexp.MustCompile(`msg=listening addr=(127\.0\.0\.1:[0-9]+)`)

func startServe(t testing.TB, config string) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "registry.toml")
	text := fmt.Sprintf("[http]\naddr = \"127.0.0.1:0\"\n[storage]\nlocation = %q\nsync = false\n%s", filepath.Join(dir, "data"), config)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return startListening(t, exec.Command(Command(t, "tare"), "serve", "--config", file), serving)
}
