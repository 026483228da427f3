package cli

import (
	"encoding/base64"
	"fmt"
	"time"
	"unicode/utf8"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/image/layer/tarstream"
	"github.com/tare-oci/tare/image/tree"
)

// contentsFlags are those of the verbs that look into images.
type contentsFlags struct {
	app      *app
	platform func() (*v1.Platform, error)
	registry registryFlags
}

func (a *app) declareContentsFlags(cmd *cobra.Command) contentsFlags {
	f := contentsFlags{app: a, platform: platformFlag(cmd.Flags()), registry: declareRegistryFlags(cmd.Flags())}
	cmd.ValidArgsFunction = a.completePlaces
	return f
}

// open opens images, and calls use with them.
func (f contentsFlags) open(cmd *cobra.Command, names []string, use func([]*engine.Contents) error) error {
	return f.openBy(cmd, names, func(e *engine.Engine, name string, o engine.FilesOptions) (*engine.Contents, error) {
		return e.OpenContents(cmd.Context(), name, o.Platform, o.Registry)
	}, use)
}

// openBy is open with another way to find what a name stands for.
func (f contentsFlags) openBy(cmd *cobra.Command, names []string,
	find func(*engine.Engine, string, engine.FilesOptions) (*engine.Contents, error), use func([]*engine.Contents) error) error {
	platform, err := f.platform()
	if err != nil {
		return err
	}
	client, err := f.registry.client(f.app)
	if err != nil {
		return err
	}
	defer client.Close()
	e, err := f.app.engine()
	if err != nil {
		return err
	}
	defer e.Close()
	var all []*engine.Contents
	for _, name := range names {
		c, err := find(e, name, engine.FilesOptions{Platform: platform, Registry: client})
		if err != nil {
			return err
		}
		defer c.Close()
		all = append(all, c)
	}
	return use(all)
}

// fileInfo is a file of an image, for machines.
type fileInfo struct {
	Path       string            `json:"path"`
	RawPath    string            `json:"rawPath,omitempty"` // base64, where it is not UTF-8
	Type       string            `json:"type"`
	Mode       string            `json:"mode"` // in octal
	UID        uint32            `json:"uid"`
	GID        uint32            `json:"gid"`
	SizeBytes  int64             `json:"sizeBytes"`
	ModTime    string            `json:"modTime"`
	LinkTarget string            `json:"linkTarget,omitempty"`
	Device     string            `json:"device,omitempty"`
	Xattrs     map[string][]byte `json:"xattrs,omitempty"` // base64
	SHA256     string            `json:"sha256,omitempty"`
	Layer      int               `json:"layer"` // that it came with, counted from 1
}

// fileTypes are the kinds of files: for machines, and as ls -l begins its lines.
var fileTypes = [...]struct {
	typ    byte
	letter byte
	name   string
}{
	{tarstream.TypeReg, '-', "file"}, {tarstream.TypeDir, 'd', "directory"}, {tarstream.TypeSymlink, 'l', "symlink"},
	{tarstream.TypeChar, 'c', "char"}, {tarstream.TypeBlock, 'b', "block"}, {tarstream.TypeFifo, 'p', "fifo"},
}

func infoOf(path string, f *tree.File) fileInfo {
	i := fileInfo{
		Path: path, Mode: fmt.Sprintf("%04o", f.Mode), UID: f.UID, GID: f.GID, SizeBytes: f.SizeBytes,
		ModTime: modTime(f).Format(time.RFC3339Nano), LinkTarget: f.Linkname, Layer: f.Layer + 1,
	}
	if !utf8.ValidString(path) {
		i.RawPath = base64.StdEncoding.EncodeToString([]byte(path))
	}
	for _, t := range fileTypes {
		if t.typ == f.Type {
			i.Type = t.name
		}
	}
	if f.Type == tarstream.TypeChar || f.Type == tarstream.TypeBlock {
		i.Device = fmt.Sprintf("%d:%d", f.Major, f.Minor)
	}
	for _, x := range f.Xattrs {
		if i.Xattrs == nil {
			i.Xattrs = map[string][]byte{}
		}
		i.Xattrs[x.Name] = x.Value
	}
	if f.Sum != nil {
		i.SHA256 = fmt.Sprintf("%x", *f.Sum)
	}
	return i
}

// modTime is in UTC: what a listing says must not depend on where we are.
func modTime(f *tree.File) time.Time { return time.Unix(f.ModTime.Sec, f.ModTime.Nsec).UTC() }

// modeText is type and mode as ls writes them.
func modeText(f *tree.File) string {
	text := []byte("?rwxrwxrwx")
	for _, t := range fileTypes {
		if t.typ == f.Type {
			text[0] = t.letter
		}
	}
	for i := range 9 {
		if f.Mode&(1<<(8-i)) == 0 {
			text[1+i] = '-'
		}
	}
	for _, special := range []struct {
		bit    uint32
		at     int
		letter byte
	}{{0o4000, 3, 's'}, {0o2000, 6, 's'}, {0o1000, 9, 't'}} {
		switch {
		case f.Mode&special.bit == 0:
		case text[special.at] == '-':
			text[special.at] = special.letter - 'a' + 'A'
		default:
			text[special.at] = special.letter
		}
	}
	return string(text)
}
