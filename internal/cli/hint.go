package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"os/exec"
	"strings"
	"syscall"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/registries"
	"github.com/tare-oci/tare/distribution/server/config"
	"github.com/tare-oci/tare/distribution/server/storage/s3"
	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/changeset"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/runtime/host"
)

// hints say what the user can do about an error. The first row that matches
// counts, so the closer cause comes first.
func hints() []hint {
	return []hint{
		{is(engine.ErrNeedsRoot), "pull, images, inspect, rmi and gc work without root, and so do explain of a bundle and unpack --rootless"},
		{is(engine.ErrForeign), "--allow-foreign fetches it from there; its digest is verified"},
		{is(layer.ErrEncrypted), "tare unpack --decrypt-with COMMAND has a program of yours decrypt it"},
		{is(layer.ErrNotMapped), "--uid-map and --gid-map must cover all ids that the image's files have, such as 0:100000:65536"},
		{is(layer.ErrLimit), "if you trust the image: tare unpack --help tells the flags that set the limits"},
		{is(engine.ErrCommandNotFound), "the image has no such program in its PATH; tare run --entrypoint ls IMAGE /bin shows what it has, where it has ls"},
		{is(engine.ErrCommandNotExecutable), "is it a program for this platform, and has it the x permission? tare inspect IMAGE tells the platform"},
		{is(config.ErrNeedsAuth), "say in the configuration file who may do what, or allow everybody with --insecure-no-auth"},
		{is(syscall.EADDRINUSE), "something listens there already; choose another port with --addr HOST:PORT"},
		{is(distribution.ErrInvalidReference), "an image is named [HOST[:PORT]/]PATH[:TAG][@DIGEST] in lower case, such as debian:12 or registry.example.com:5000/team/app:v1"},
		{is(distribution.ErrTooManyRequests), "the registry limits anonymous users; sign in with tare login, or wait"},
		{is(distribution.ErrUnauthorized), "give credentials with --creds USER:PASSWORD or --authfile FILE, or sign in with tare login; " +
			"many registries answer so for an image that does not exist, too"},
		{partsMissing, "this registry wants all that a manifest names to be there: copy an index with --all; tare serve takes less with limits.sparse"},
		{denied, "the credentials are accepted, but do not open this repository; is its name right?"},
		{is(distribution.ErrNotFound), "the registry has no such image: check the spelling of name and tag"},
		{is(registries.ErrBlocked), "registries.conf says so: /etc/containers/registries.conf, or the one in your ~/.config/containers"},
		{as[*engine.AmbiguousError], "name it in full, or say which one is meant under [aliases] in registries.conf"},
		{as[*image.NoPlatformError], "choose one of these with --platform OS/ARCH"},
		{is(image.ErrArtifact), "tare artifact pull writes its files to a directory; it is nothing that can be run"},
		{is(image.ErrMismatch), "what the registry or the disk has is damaged or was changed; pull again, and if it stays so tell the registry's owner"},
		{is(engine.ErrFileExists), "with --overwrite it is replaced"},
		{is(s3.ErrNoCredentials), "the account is AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or storage.s3 in the configuration file"},
		{is(engine.ErrNoContainer), "tare ps -a lists the containers that are here; a bundle's directory is named with a slash, such as ./bundle"},
		{is(engine.ErrRunning), "tare rm -f kills it first"},
		{is(engine.ErrNoOrigin), "tare unpack IMAGE DIR makes one; bundles of other tools have no record of what was in them"},
		{is(changeset.ErrMountPoint), "unmount it, or leave it out with --mask-path"},
		{is(changeset.ErrChanging), "something writes there; stop that, and try again"},
		{is(changeset.ErrWhiteoutName), "rename the file, or leave it out with --mask-path"},
		{is(engine.ErrSeveralNames), "name the one that shall go, or take all of them away with --force"},
		{is(engine.ErrNoImage), "tare images lists what is here; tare pull IMAGE fetches what is not"},
		{is(host.ErrKernelTooOld), "upgrade the kernel, or pull and unpack here and run elsewhere"},
		{speaksHTTP, "this registry does not speak TLS; if that is meant to be, use --plain-http"},
		{unknownAuthority, "the registry's certificate is not from an authority that this machine trusts; name that authority with --cacert FILE, or put it into certs.d"},
		{as[*net.DNSError], "is the registry's name right, and this machine online?"},
		{is(exec.ErrNotFound), "name an OCI runtime that is installed, such as runc or crun, or leave --runtime out: tare has its own"},
		{is(syscall.ECONNREFUSED), "nothing listens there; are the registry's address and port right?"},
		{lockHeld, "another tare is at work in the same place; wait for it, or use another --root"},
		{is(syscall.ENOSPC), "the disk is full; tare gc removes what no image needs, --root moves everything elsewhere"},
		{is(syscall.EROFS), "the file system is read-only; --root DIR keeps everything elsewhere"},
		{permission, "run it as root, or keep everything in a place of your own with --root DIR"},
	}
}

// hint is one row: what it is for, and what it says.
type hint struct {
	matches func(error) bool
	text    string
}

func hintFor(err error) string {
	for _, h := range hints() {
		if h.matches(err) {
			return h.text
		}
	}
	return ""
}

func is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

func as[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// partsMissing is a manifest that names what the registry does not have.
func partsMissing(err error) bool {
	e, ok := errors.AsType[*distribution.Error](err)
	return ok && e.Code == distribution.CodeManifestBlobUnknown
}

// denied is a refusal that does not say itself what for, such as a quota or a tag
// that is fixed.
func denied(err error) bool {
	e, ok := errors.AsType[*distribution.Error](err)
	explained := ok && e.Code == distribution.CodeDenied && strings.HasPrefix(e.Message, e.Code.Message()+": ")
	return errors.Is(err, distribution.ErrDenied) && !explained
}

// speaksHTTP: net/http has no value for the one, crypto/tls has one for the other.
func speaksHTTP(err error) bool {
	return as[tls.RecordHeaderError](err) || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

func unknownAuthority(err error) bool {
	return as[x509.UnknownAuthorityError](err) || as[*tls.CertificateVerificationError](err)
}

// lockHeld: who waits for a lock gives up only when it is told to.
func lockHeld(err error) bool {
	return strings.Contains(err.Error(), "held by another process") && errors.Is(err, context.Canceled)
}

// permission is for files; a registry's refusal is another thing.
func permission(err error) bool {
	return errors.Is(err, fs.ErrPermission) && as[*fs.PathError](err)
}
