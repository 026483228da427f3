package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tare-oci/tare/runtime/linux"
)

// newMount makes a file system of its own for a mount.
func (c *compiler) newMount(m mount) {
	if m.Type == "" {
		c.fail(m.field+".type", "missing, and the mount is no bind mount")
	}
	c.onlyFor(m, "a "+m.Type, m.Type == "tmpfs", false)
	fs := c.filesystem(m)
	readonly := fs.Attr & linux.MOUNT_ATTR_RDONLY
	late := readonly != 0 && (m.Type == "tmpfs" || m.dest == "/dev")
	if late {
		// What is mounted below it, and devices, need places to be made in it.
		fs.Attr &^= readonly
		if m.Type != "tmpfs" {
			fs.Flags = superFlags(m.options)
		}
	}
	// The devices are made through the mount itself where nothing will cover it.
	dev := m.dest == "/dev" && m.index == c.lastAt("/dev") && c.ownDev()
	copies := c.copiesItself(m)
	if copies && fs.classic() {
		c.fail(m.field+".options", "tmpcopyup beside an option in quotes or above %d bytes needs CAP_SYS_ADMIN", maxStringBytes)
	}
	tree, copied := c.trees[m.field+".options"]
	switch {
	case copied:
		c.place(m, tree, c.target(m.field+".destination", m.dest, true), late || dev)
	case fs.classic():
		tree = c.newFD(m.Type + " " + m.dest)
		fs.Out = tree
		c.step(m.field, mountClassic{fs, c.target(m.field+".destination", m.dest, true)})
		c.propagate(m, tree, late || dev)
		if !late && !dev && len(m.options.Propagation) == 0 {
			c.step(m.field, closeFD{tree})
		}
	default:
		tree = c.newFD(m.Type + " " + m.dest)
		fs.Out = tree
		c.step(m.field, fs)
		if m.Type == "mqueue" && c.linux().MountLabel != "" {
			c.step("linux.mountLabel", labelRoot{tree, c.linux().MountLabel})
		}
		target := c.target(m.field+".destination", m.dest, true)
		if copies {
			c.step(m.field+".options", copyFiles{From: target, To: tree, Files: c.facts.CopySources[m.index].Files})
		}
		c.place(m, tree, target, late || dev)
	}
	if late {
		c.readonlyLater(m, tree, readonly)
	}
	if dev {
		c.dev, c.devLate = tree, late
	}
}

// lastAt is the index of the last mount on a place, -1 for none.
func (c *compiler) lastAt(dest string) int {
	for i := len(c.list) - 1; i >= 0; i-- {
		if c.list[i].dest == dest && !c.list[i].options.Remount {
			return i
		}
	}
	return -1
}

// filesystem is what a mount's type, source and options say of its file system.
func (c *compiler) filesystem(m mount) mountFS {
	o := m.options
	fs := mountFS{Type: m.Type, Source: m.Source, Data: splitOptions(o.Data), Label: c.contextOf(m.Type),
		Attr: o.RecAttrSet&^o.AttrClear | o.AttrSet}
	switch m.Type {
	case "sysfs", "mqueue":
		// Their superblocks belong to a namespace, and are there before we come.
		c.refuseOptions(m, "a "+m.Type, superFlags(o)...)
	case "proc", "tmpfs", "devpts":
		// Only the mount is made read-only: more comes into a tmpfs, and a proc
		// stays the kernel's.
		fs.Flags = superFlags(o)
		if m.Type == "tmpfs" {
			fs.Flags = slices.DeleteFunc(fs.Flags, func(f string) bool { return f == "acl" }) // which it has, and no word for it
		}
	default:
		fs.Flags = o.Super
	}
	if mode, ok := c.facts.TmpfsModes[m.index]; ok && m.Type == "tmpfs" && !hasKey(fs.Data, "mode") {
		fs.Data = append([]string{fmt.Sprintf("mode=%04o", mode)}, fs.Data...)
	}
	if kind, sub, ok := strings.Cut(m.Type, "."); ok && kind == "fuse" {
		fs.Data = append(fs.Data, "subtype="+sub)
	}
	return fs
}

// contextOf is the label of the files of a new file system of a type, where
// the mount can give them one.
func (c *compiler) contextOf(fsType string) string {
	switch fsType {
	case "proc", "sysfs", "mqueue", "cgroup", "cgroup2":
		return ""
	}
	return c.linux().MountLabel
}

func hasKey(data []string, key string) bool {
	for _, d := range data {
		if k, _, _ := strings.Cut(d, "="); k == key {
			return true
		}
	}
	return false
}

// splitOptions takes options apart that are several, separated by commas: what
// mount(2) does.
func splitOptions(options []string) []string {
	var parts []string
	for _, o := range options {
		if strings.ContainsAny(o, `"\`) {
			parts = append(parts, o) // for mountClassic
			continue
		}
		for _, p := range strings.Split(o, ",") {
			if p != "" {
				parts = append(parts, p)
			}
		}
	}
	return parts
}

// A CopyUp is a tmpfs that the parent makes and fills with what it is going to
// hide: option tmpcopyup.
type CopyUp struct {
	// Source is what it is filled with.
	Source CopySource
	// Device is the file system's source, as mount(8) shows it.
	Device string
	// Flags, Data and Label are those of the superblock, Attr the attributes of
	// the mount (MOUNT_ATTR_*).
	Flags, Data []string
	Label       string
	Attr        uint64
	// IDs are the maps of the container's user namespace, nil without one: the
	// owner among Data is one of the container's.
	IDs *IDMap
}

// A CopySource is a directory that the parent finds below another one, through
// no link that leads out of that.
type CopySource struct {
	Root string
	Name string
	// Files are what is in it, each behind its directory, where the container's
	// process copies them: whose parent may mount nothing.
	Files []CopyFile
}

// A CopyFile is a file in a CopySource.
type CopyFile struct {
	Name      string // below the directory
	Mode      uint32 // with S_IFREG, S_IFDIR, S_IFLNK or S_IFIFO
	UID, GID  uint32 // in the container
	SizeBytes int64
	Target    string // of a symbolic link
}

type copyUpFile struct {
	CopyUp
	field  string
	source CopySource
}

// copiesItself says of a mount that the process fills it with what it hides.
func (c *compiler) copiesItself(m mount) bool {
	return len(c.facts.CopySources[m.index].Files) > 0 && !c.facts.Host.HasCap(linux.CAP_SYS_ADMIN)
}

// copyUp is nil where a tmpfs hides nothing, or its parent may not make it.
func (c *compiler) copyUp(m mount) *copyUpFile {
	source, ok := c.facts.CopySources[m.index]
	if !ok || !c.facts.Host.HasCap(linux.CAP_SYS_ADMIN) {
		return nil
	}
	fs := c.filesystem(m)
	readonly := uint64(linux.MOUNT_ATTR_RDONLY)
	up := CopyUp{Source: source, Device: fs.Source, Flags: fs.Flags, Data: fs.Data, Label: fs.Label, Attr: fs.Attr &^ readonly}
	if c.userNamespace() {
		up.IDs = c.ownIDs()
	}
	return &copyUpFile{up, m.field + ".options", source}
}
