package cli

import (
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/image/layout"
	"github.com/tare-oci/tare/image/mutate"
	"github.com/tare-oci/tare/internal/version"
)

// demoPasswd is there so that the image's user has to be looked up.
const demoPasswd = "root:x:0:0::/:/tare\ngopher:x:1000:1000::/:/tare\n"

// buildDemoImage makes an image of this very program and names it. It returns
// the size of its layer.
func buildDemoImage(ctx context.Context, store *layout.Store, name string) (sizeBytes int64, err error) {
	session, err := store.Begin(ctx)
	if err != nil {
		return 0, err
	}
	defer session.Close()
	entries, err := demoEntries()
	if err != nil {
		return 0, fmt.Errorf("build image: %w", err)
	}
	var blob bytes.Buffer
	written, err := layer.Write(&blob, entries)
	if err != nil {
		return 0, err
	}
	desc := v1.Descriptor{MediaType: v1.MediaTypeImageLayerGzip, Digest: written.Digest, Size: written.SizeBytes}
	if err := ingest(ctx, session, desc, blob.Bytes()); err != nil {
		return 0, err
	}
	manifest, err := mutate.Apply(ctx, session, nil, mutate.Change{
		Layers: []mutate.Layer{{Desc: desc, DiffID: written.DiffID, History: v1.History{CreatedBy: "tare demo", Comment: "this program"}}},
		Config: func(c *v1.Image) {
			c.Config.Entrypoint = []string{"/tare", greetVerb}
			c.Config.User = "gopher"
			c.Config.Env = []string{"PATH=/", "TARE_VERSION=" + version.Version}
			c.Config.Labels = map[string]string{v1.AnnotationTitle: "tare demo"}
		},
	})
	if err != nil {
		return 0, err
	}
	return written.SizeBytes, session.Tag(ctx, name, manifest)
}

func ingest(ctx context.Context, session *layout.Session, desc v1.Descriptor, data []byte) error {
	in, err := session.Ingest(ctx, desc)
	if err != nil {
		return err
	}
	if _, err := in.Write(data[in.Offset():]); err != nil {
		return errors.Join(err, in.Discard())
	}
	return errors.Join(in.Commit(), in.Close())
}

// demoEntries are the files of the image: this program, and, where it was built
// with cgo (as "go run" does where there is a C compiler), the libraries that it
// runs with.
func demoEntries() ([]layer.Entry, error) {
	self, err := fileEntry("tare", "/proc/self/exe")
	if err != nil {
		return nil, err
	}
	entries := []layer.Entry{
		self,
		{Name: "etc", Mode: fs.ModeDir | 0o755},
		{Name: "etc/passwd", Mode: 0o644, Content: []byte(demoPasswd)},
	}
	libraries, err := ownLibraries()
	if err != nil {
		return nil, err
	}
	for name, file := range libraries {
		library, err := fileEntry(name, file)
		if err != nil {
			return nil, err
		}
		entries = append(entries, library)
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if !slices.ContainsFunc(entries, func(e layer.Entry) bool { return e.Name == dir }) {
				entries = append(entries, layer.Entry{Name: dir, Mode: fs.ModeDir | 0o755})
			}
		}
	}
	return entries, nil
}

func fileEntry(name, file string) (layer.Entry, error) {
	st, err := os.Stat(file)
	if err != nil {
		return layer.Entry{}, err
	}
	open := func() (io.ReadCloser, error) { return os.Open(file) }
	return layer.Entry{Name: name, Mode: 0o755, SizeBytes: st.Size(), Open: open}, nil
}

// ownLibraries tells which shared objects this process runs with, by the name
// under which the dynamic linker looks for each: it need not be followed
// through what they depend on, as the kernel lists all that is mapped. A static
// program has none.
func ownLibraries() (map[string]string, error) {
	interpreter, _, err := dynamicNames("/proc/self/exe")
	if err != nil || interpreter == "" {
		return nil, err
	}
	files := map[string]string{strings.TrimPrefix(interpreter, "/"): interpreter}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil, err
	}
	defer maps.Close()
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		// proc_pid_maps(5): address perms offset dev inode pathname
		fields := strings.Fields(lines.Text())
		if len(fields) != 6 || !strings.Contains(path.Base(fields[5]), ".so") {
			continue
		}
		_, name, err := dynamicNames(fields[5])
		if err != nil {
			return nil, err
		}
		files[strings.TrimPrefix(path.Join(path.Dir(fields[5]), name), "/")] = fields[5]
	}
	return files, lines.Err()
}

// dynamicNames reads from an ELF file the interpreter that it asks for, and the
// name that it wants to be found under.
func dynamicNames(file string) (interpreter, soname string, err error) {
	f, err := elf.Open(file)
	if err != nil {
		return "", "", fmt.Errorf("%s: %w", file, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			text, err := io.ReadAll(p.Open())
			if err != nil {
				return "", "", fmt.Errorf("%s: interpreter: %w", file, err)
			}
			interpreter = strings.TrimRight(string(text), "\x00")
		}
	}
	names, err := f.DynString(elf.DT_SONAME)
	if err != nil || len(names) == 0 {
		return interpreter, path.Base(file), nil
	}
	return interpreter, names[0], nil
}
