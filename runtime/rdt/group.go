package rdt

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A Group is a container's place in resctrl, as it is kept on record.
type Group struct {
	// Class is the directory of the class of service.
	Class string `json:"class"`
	// Monitor is the directory of the container's monitoring group, empty for none.
	Monitor string `json:"monitor,omitempty"`
	// Made says that the class is made for this container alone and goes with it.
	Made bool `json:"made,omitempty"`

	tree    tree
	missing bool // the class is not there yet
}

// Find says where a container belongs below root, the mount of resctrl. It
// changes nothing: Create makes what is missing. Errors are of type *FieldError.
func Find(root, id string, c *specs.LinuxIntelRdt) (*Group, error) {
	return tree{root, unix.Mkdir, unix.Rmdir}.find(id, c)
}

// tree is a resctrl file system; tests have one that needs help to make a group.
type tree struct {
	root  string
	mkdir func(name string, mode uint32) error
	rmdir func(name string) error
}

// A FieldError says what is wrong with a field of linux.intelRdt.
type FieldError struct {
	Field string
	Err   error
}

// Error names field and cause.
func (e *FieldError) Error() string { return e.Field + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *FieldError) Unwrap() error { return e.Err }

func (t tree) find(id string, c *specs.LinuxIntelRdt) (*Group, error) {
	g := &Group{Class: filepath.Join(t.root, cmp.Or(c.ClosID, id)), tree: t}
	if c.EnableMonitoring {
		g.Monitor = filepath.Join(g.Class, "mon_groups", id)
	}
	switch info, err := os.Stat(g.Class); {
	case errors.Is(err, fs.ErrNotExist):
		g.missing, g.Made = true, c.ClosID == ""
		if !g.Made && schemata(c) == "" {
			return nil, &FieldError{"closID", fmt.Errorf("there is no class %q, and nothing that says what a new one should be", c.ClosID)}
		}
	case err != nil:
		return nil, &FieldError{"closID", err}
	case !info.IsDir():
		return nil, &FieldError{"closID", fmt.Errorf("%s is no directory", g.Class)}
	case c.ClosID != "":
		// An existing class is shared, and must be what is asked for.
		return g, matches(g.Class, c)
	}
	return g, nil
}

// Create makes what is missing of the groups that Find has found, and sets their
// shares. After an error nothing new is left.
func (g *Group) Create(c *specs.LinuxIntelRdt) (err error) {
	if g.missing {
		if err := g.tree.mkdir(g.Class, 0o755); err != nil {
			return &FieldError{"closID", g.tree.withStatus(err)}
		}
		defer func() {
			if err != nil {
				err = errors.Join(err, g.tree.rmdir(g.Class))
			}
		}()
	}
	if err := g.Update(c); err != nil {
		return err
	}
	if g.Monitor != "" {
		if err := g.tree.mkdir(g.Monitor, 0o755); err != nil {
			return &FieldError{"enableMonitoring", g.tree.withStatus(err)}
		}
	}
	return nil
}

// schemata are the lines to be written, in the order that config-linux.md wants.
func schemata(c *specs.LinuxIntelRdt) string {
	var b strings.Builder
	for _, line := range append([]string{c.L3CacheSchema, c.MemBwSchema}, c.Schemata...) {
		if line != "" {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// matches compares what l3CacheSchema and memBwSchema say with what a class has.
func matches(class string, c *specs.LinuxIntelRdt) error {
	if c.L3CacheSchema == "" && c.MemBwSchema == "" {
		return nil
	}
	data, err := readAll(filepath.Join(class, "schemata"))
	if err != nil {
		return &FieldError{"closID", err}
	}
	have := shares(data)
	for _, want := range []struct{ field, schema string }{{"l3CacheSchema", c.L3CacheSchema}, {"memBwSchema", c.MemBwSchema}} {
		for share, value := range shares(want.schema) {
			if have[share] != value {
				return &FieldError{want.field, fmt.Errorf("class %s has %s=%s, not %s", class, share, have[share], value)}
			}
		}
	}
	return nil
}

// shares reads schemata, "L3:0=ff;1=0f" and "MB:0=20", into the value of each
// resource and cache: "L3:0" is "ff". The kernel prints names and values with
// padding of its own.
func shares(schemata string) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(schemata) {
		resource, list, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		for part := range strings.SplitSeq(list, ";") {
			cache, value, ok := strings.Cut(part, "=")
			if !ok {
				continue
			}
			all[strings.TrimSpace(resource)+":"+plain(cache)] = plain(strings.ToLower(value))
		}
	}
	return all
}

// plain is a number without padding.
func plain(number string) string {
	number = strings.TrimLeftFunc(strings.TrimSpace(number), func(r rune) bool { return r == '0' || unicode.IsSpace(r) })
	return cmp.Or(number, "0")
}

// Add puts a process into the groups.
func (g *Group) Add(pid int) error {
	for _, dir := range []string{g.Class, g.Monitor} {
		if dir == "" {
			continue
		}
		if err := g.root().write(filepath.Join(dir, "tasks"), strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("add process %d: %w", pid, err)
		}
	}
	return nil
}

// Update changes the shares of the group's class.
func (g *Group) Update(c *specs.LinuxIntelRdt) error {
	lines := schemata(c)
	if lines == "" {
		return nil
	}
	if err := g.root().write(filepath.Join(g.Class, "schemata"), lines); err != nil {
		return &FieldError{"schemata", err}
	}
	return nil
}

// root is the tree that the group is in, also for one that was read from a record.
func (g *Group) root() tree {
	root := filepath.Dir(g.Class)
	if _, err := os.Lstat(filepath.Join(g.Class, "info")); err == nil {
		root = g.Class
	}
	return tree{root: root}
}

// Remove removes what was made for the container: its class, and with that its
// monitoring group, or that one alone.
func (g *Group) Remove() error { return g.remove(unix.Rmdir) }

func (g *Group) remove(rmdir func(string) error) error {
	var errs []error
	for _, dir := range []string{g.Monitor, g.Class} {
		if dir == "" || dir == g.Class && !g.Made {
			continue
		}
		if err := rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, &os.PathError{Op: "rmdir", Path: dir, Err: err})
		}
	}
	return errors.Join(errs...)
}

// write writes a file that must be there.
func (t tree) write(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return t.withStatus(err)
	}
	return nil
}

// withStatus adds what the kernel has to say of the last write or mkdir.
func (t tree) withStatus(err error) error {
	status, rerr := readAll(filepath.Join(t.root, "info", "last_cmd_status"))
	status = strings.TrimSpace(status)
	if rerr != nil || status == "" || status == "ok" {
		return err
	}
	return fmt.Errorf("%w: %s", err, status)
}

const maxFile = 64 << 10 // bytes of schemata

func readAll(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile))
	return string(data), err
}
