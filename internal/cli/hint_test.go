package cli

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/server/config"
	"github.com/tare-oci/tare/distribution/server/storage/s3"
	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/runtime/host"
)

// TestHints wraps each error as the libraries do, and looks for the word that
// the user needs.
func TestHints(t *testing.T) {
	file := func(errno syscall.Errno) error { return &fs.PathError{Op: "open", Path: "/x", Err: errno} }
	for _, c := range []struct {
		err  error
		want string
	}{
		{engine.ErrNeedsRoot, "without root"},
		{engine.ErrCommandNotFound, "no such program"},
		{engine.ErrNoImage, "tare pull"},
		{&distribution.ResponseError{Status: 401}, "--creds"},
		{&distribution.ResponseError{Status: 429}, "sign in"},
		{&distribution.ResponseError{Status: 404}, "spelling"},
		{errors.Join(errors.New("one"), distribution.ErrDenied), "repository"},
		{&distribution.ResponseError{Status: 403, Errors: []distribution.Error{{Code: distribution.CodeDenied}}}, "repository"},
		{&distribution.ResponseError{Status: 403, Errors: []distribution.Error{*distribution.Errorf(distribution.CodeDenied, "the quota is exceeded")}}, ""},
		{&distribution.ResponseError{Status: 400, Errors: []distribution.Error{{Code: distribution.CodeManifestBlobUnknown}}}, "--all"},
		{engine.ErrFileExists, "--overwrite"},
		{s3.ErrNoCredentials, "AWS_SECRET_ACCESS_KEY"},
		{distribution.ErrInvalidReference, "debian:12"},
		{&image.NoPlatformError{}, "--platform"},
		{image.ErrMismatch, "damaged"},
		{host.ErrKernelTooOld, "upgrade the kernel"},
		{config.ErrNeedsAuth, "--insecure-no-auth"},
		{syscall.EADDRINUSE, "--addr"},
		{tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}, "--plain-http"},
		{errors.New("http: server gave HTTP response to HTTPS client"), "--plain-http"},
		{&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, "--cacert"},
		{&net.DNSError{}, "online"},
		{exec.ErrNotFound, "--runtime"},
		{file(syscall.ENOSPC), "tare gc"},
		{file(syscall.EROFS), "--root"},
		{file(syscall.EACCES), "--root"},
		{syscall.EPERM, ""}, // of some system call: nothing is known
		{errors.New("anything else"), ""},
	} {
		got := hintFor(fmt.Errorf("pull x: %w", c.err))
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%v: %q, want something with %q", c.err, got, c.want)
		}
	}
}

func TestHintsAreForPeople(t *testing.T) {
	for _, h := range hints() {
		if strings.HasSuffix(h.text, ".") || strings.ToLower(h.text[:1]) != h.text[:1] {
			t.Errorf("%q: a hint begins in lower case and ends without a full stop", h.text)
		}
	}
}
