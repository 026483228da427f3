package archive

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/image/internal/newfile"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/safepath"
)

// Bounds on archives from outside.
const (
	maxMembers      = 1 << 20
	maxNameBytes    = 1 << 10 // of a member: digests and short names
	maxNamesBytes   = 64 << 20
	maxLinks        = 8 // from a member to the one it stands for
	maxSpoolDefault = 256 << 30
	maxRatio        = 500 // of spooled bytes to those read, once more than
	ratioFloorBytes = 256 << 20
)

// Options say how to read an archive.
type Options struct {
	// SpoolDir is where an archive is put aside that cannot be read where it
	// is; default $TMPDIR, or else /var/tmp, as it may be large.
	SpoolDir string
	// MaxSpoolBytes bounds what is put there; default 256 GiB.
	MaxSpoolBytes int64
}

func (o Options) withDefaults() Options {
	if o.SpoolDir == "" {
		o.SpoolDir = "/var/tmp"
		if dir := os.Getenv("TMPDIR"); dir != "" {
			o.SpoolDir = dir
		}
	}
	if o.MaxSpoolBytes <= 0 {
		o.MaxSpoolBytes = maxSpoolDefault
	}
	return o
}

// member is a file in the archive, or a link to another.
type member struct {
	offset, sizeBytes int64
	link              string // the name of the member it stands for
}

// members are the files of an archive, by their names.
type members struct {
	name string // of the archive, for messages
	file *os.File
	all  map[string]member

	namesBytes int
}

// openMembers finds what is in an archive. The file is theirs from now on.
func openMembers(ctx context.Context, name string, file *os.File, o Options) (*members, error) {
	m := &members{name: name, file: file, all: map[string]member{}}
	err := m.makeSeekable(ctx, o.withDefaults())
	if err == nil {
		err = m.scan(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("archive %s: %w", name, err), m.file.Close())
	}
	return m, nil
}

// makeSeekable puts aside what can be read once only, uncompressed.
func (m *members) makeSeekable(ctx context.Context, o Options) error {
	st, err := m.file.Stat()
	if err != nil {
		return err
	}
	if st.IsDir() {
		return errors.New("is a directory, not an archive")
	}
	head := make([]byte, 512)
	if st.Mode().IsRegular() {
		n, err := m.file.ReadAt(head, 0)
		if err != nil && err != io.EOF {
			return err
		}
		if n == 0 {
			return errors.New("is empty")
		}
		if !compressed(head[:n]) {
			_, err := m.file.Seek(0, io.SeekStart)
			return err
		}
	}
	spool, err := newfile.Unnamed(o.SpoolDir)
	if err != nil {
		return err
	}
	if err := m.fill(ctx, spool, o.MaxSpoolBytes); err != nil {
		return errors.Join(err, spool.Close())
	}
	old := m.file
	m.file = spool
	return old.Close()
}

// compressed says whether a file begins as one that layer.Decompress takes, or
// refuses with a reason.
func compressed(head []byte) bool {
	for _, magic := range []string{"\x1f\x8b", "\x28\xb5\x2f\xfd", "\xfd7zXZ\x00", "BZh", "\x04\x22\x4d\x18"} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return true
		}
	}
	return len(head) > 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18})
}

// fill copies the uncompressed archive to the spool.
func (m *members) fill(ctx context.Context, spool *os.File, maxBytes int64) error {
	packed := &counter{r: Interruptible(ctx, m.file)}
	r, err := layer.Decompress(bufio.NewReaderSize(packed, copyBytes), "")
	if err != nil {
		return err
	}
	defer r.Close()
	n, err := io.CopyBuffer(onlyWriter{spool}, &bounded{r: r, packed: packed, maxBytes: maxBytes}, make([]byte, copyBytes))
	switch {
	case err != nil:
		return fmt.Errorf("put aside: %w", err)
	case n == 0:
		return errors.New("is empty")
	}
	_, err = spool.Seek(0, io.SeekStart)
	return err
}

type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// bounded stops what unpacks to far more than a tar archive can.
type bounded struct {
	r        io.Reader
	packed   *counter
	n        int64
	maxBytes int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	switch b.n += int64(n); {
	case b.n > b.maxBytes:
		return 0, fmt.Errorf("%w: more than %d bytes", layer.ErrLimit, b.maxBytes)
	case b.n > ratioFloorBytes && b.n/maxRatio > b.packed.n:
		return 0, fmt.Errorf("%w: %d bytes unpack to more than %d times as many", layer.ErrLimit, b.packed.n, maxRatio)
	}
	return n, err
}

// contextReader ends with a context.
type contextReader struct {
	ctx context.Context
	io.Reader
}

func (r *contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// Interruptible reads a file, and ends with a context even if it is a pipe from
// which nothing comes.
func Interruptible(ctx context.Context, f *os.File) io.Reader { return &waiting{ctx, f} }

type waiting struct {
	ctx  context.Context
	file *os.File
}

func (w *waiting) Read(p []byte) (int, error) {
	const lookMilliseconds = 200
	for {
		if w.ctx.Err() != nil {
			return 0, context.Cause(w.ctx)
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(w.file.Fd()), Events: unix.POLLIN}}, lookMilliseconds)
		if n > 0 || err != nil && err != unix.EINTR {
			return w.file.Read(p) // which says what is wrong, if it is
		}
	}
}

// These hide what would make io.Copy go around its buffer.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)

const copyBytes = 1 << 20

// scan notes the members. Package tar reads whole blocks and no further, so
// where the file stands after a header is where the content begins.
func (m *members) scan(ctx context.Context) error {
	st, err := m.file.Stat()
	if err != nil {
		return err
	}
	tr := tar.NewReader(m.file)
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if err == io.EOF {
			return m.notEmpty()
		}
		if err != nil {
			return m.scanError(n, err)
		}
		if n >= maxMembers {
			return fmt.Errorf("more than %d members", maxMembers)
		}
		offset, err := m.file.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		if err := m.add(h, offset, st.Size()); err != nil {
			return fmt.Errorf("member %.200q: %w", h.Name, err)
		}
	}
}

func (m *members) notEmpty() error {
	if len(m.all) == 0 {
		return errors.New("has no files")
	}
	return nil
}

func (m *members) scanError(n int, err error) error {
	if n == 0 {
		return fmt.Errorf("not a tar archive: %w", err)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("truncated after %d members: %w", n, err)
	}
	return fmt.Errorf("member %d: %w", n+1, err)
}

// add notes one member, unless it is a directory.
func (m *members) add(h *tar.Header, offset, fileBytes int64) error {
	if len(h.Name) > maxNameBytes {
		return fmt.Errorf("name longer than %d bytes", maxNameBytes)
	}
	name, err := safepath.Clean(h.Name)
	if err != nil {
		return err
	}
	found := member{offset: offset, sizeBytes: h.Size}
	switch h.Typeflag {
	case tar.TypeDir, tar.TypeXGlobalHeader:
		return nil
	case tar.TypeReg:
		if offset > fileBytes-h.Size {
			return fmt.Errorf("truncated: %d of %d bytes", max(0, fileBytes-offset), h.Size)
		}
		for key := range h.PAXRecords {
			if strings.HasPrefix(key, "GNU.sparse.") {
				return errors.New("is sparse, as no image archive is")
			}
		}
	case tar.TypeSymlink: // as docker save wrote for a layer that is there already
		found.link, err = resolveLink(path.Dir(name), h.Linkname)
	case tar.TypeLink:
		found.link, err = resolveLink(".", h.Linkname)
	default:
		return fmt.Errorf("neither a file nor a directory but of type %q", h.Typeflag)
	}
	if err != nil {
		return fmt.Errorf("link to %.200q: %w", h.Linkname, err)
	}
	if _, twice := m.all[name]; twice {
		return errors.New("is there twice")
	}
	if m.namesBytes += len(name) + len(found.link); m.namesBytes > maxNamesBytes {
		return fmt.Errorf("names of more than %d bytes", maxNamesBytes)
	}
	m.all[name] = found
	return nil
}

// resolveLink is the name of the member that a link in dir is to, as text: no
// file system is looked at.
func resolveLink(dir, target string) (string, error) {
	if target == "" || len(target) > maxNameBytes {
		return "", fs.ErrInvalid
	}
	if path.IsAbs(target) {
		return "", errors.New("is absolute")
	}
	name := path.Join(dir, target)
	if name == ".." || strings.HasPrefix(name, "../") {
		return "", safepath.ErrEscapes
	}
	return safepath.Clean(name)
}

// find looks a member up, through links.
func (m *members) find(name string) (member, error) {
	clean, err := safepath.Clean(name)
	if err != nil {
		return member{}, m.memberError(name, err)
	}
	for range maxLinks {
		found, ok := m.all[clean]
		switch {
		case !ok && clean != name:
			return member{}, m.memberError(name, fmt.Errorf("leads to %.200q, which is missing: %w", clean, fs.ErrNotExist))
		case !ok:
			return member{}, m.memberError(name, fs.ErrNotExist)
		case found.link == "":
			return found, nil
		}
		clean = found.link
	}
	return member{}, m.memberError(name, errors.New("more links than one could want"))
}

func (m *members) has(name string) bool {
	_, ok := m.all[name]
	return ok
}

// memberError names the archive and the member.
func (m *members) memberError(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(err.Error(), "file does not") {
		return fmt.Errorf("archive %s: member %.200q is missing: %w", m.name, name, err)
	}
	return fmt.Errorf("archive %s: member %.200q: %w", m.name, name, err)
}

// read reads a small member.
func (m *members) read(name string, maxBytes int64) ([]byte, error) {
	found, err := m.find(name)
	if err != nil {
		return nil, err
	}
	if found.sizeBytes > maxBytes {
		return nil, m.memberError(name, fmt.Errorf("%d bytes, more than %d", found.sizeBytes, maxBytes))
	}
	data := make([]byte, found.sizeBytes)
	if _, err := m.file.ReadAt(data, found.offset); err != nil {
		return nil, m.memberError(name, err)
	}
	return data, nil
}

// open opens a member from offset on.
func (m *members) open(found member, offset int64) io.ReadCloser {
	return io.NopCloser(io.NewSectionReader(m.file, found.offset+offset, found.sizeBytes-offset))
}
