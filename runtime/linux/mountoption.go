package linux

// MountOptions is what a mount's options in config.json ask for, in the terms
// of the kernel's mount API. The Clear masks may be handed to mount_setattr(2)
// together with the Set masks: the kernel clears first.
type MountOptions struct {
	Bind      bool // bind or rbind
	Recursive bool // rbind
	Remount   bool // remount: change an existing mount instead of making one

	// Attributes of this mount alone. Where an atime mode is set, or put
	// back to the kernel's default relatime, Clear has all of MOUNT_ATTR__ATIME,
	// which is what mount_setattr demands.
	AttrSet, AttrClear uint64

	// Attributes of the mount and of all below it (rro, rnosuid, …). Apply
	// them first, then the ones above: the parser has seen to it that
	// whichever option came later wins.
	RecAttrSet, RecAttrClear uint64

	// Flags of the superblock, each set by fsconfig(FSCONFIG_SET_FLAG): ro, rw,
	// sync, async, dirsync, lazytime, nolazytime, mand, nomand, acl, noacl. For a bind
	// mount they mean nothing: the superblock is another mount's too.
	Super []string

	Propagation []uint64 // MS_PRIVATE and its like, with MS_REC, in order
	CopyUp      bool     // tmpcopyup: fill the tmpfs with what it hides
	IDMap       bool     // idmap or ridmap
	RecIDMap    bool     // ridmap

	Data []string // everything else: the filesystem's own options
}

type optionKind uint8

const (
	optionNothing     optionKind = iota // accepted, without effect
	optionAttr                          // a bit of MOUNT_ATTR_*
	optionAtime                         // a value of the field MOUNT_ATTR__ATIME
	optionSuper                         // a superblock flag only
	optionPropagation                   // MS_*
	optionBind
	optionRemount
	optionCopyUp
	optionIDMap
)

// SuperFlags are superblock flags as mount(2) takes them.
func SuperFlags(names []string) (flags uint64) {
	for _, n := range names {
		switch n {
		case "ro":
			flags |= MS_RDONLY
		case "sync":
			flags |= MS_SYNCHRONOUS
		case "dirsync":
			flags |= MS_DIRSYNC
		case "mand":
			flags |= MS_MANDLOCK
		case "lazytime":
			flags |= MS_LAZYTIME
		case "acl":
			flags |= MS_POSIXACL
		}
	}
	return flags
}

type mountOption struct {
	name  string
	kind  optionKind
	clear bool   // clears its flag rather than set it
	rec   bool   // the recursive variant
	flag  uint64 // by kind
	super string // superblock flags of one group replace each other
}

// Sorted by name. The rows are those of runtime-spec 1.3.0 config.md, and runc's
// acl and noacl.
//
// Without effect here, because fsconfig has no word for them: silent and loud
// (only whether the kernel logs), iversion and noiversion (only ext4 ever
// heeded the flag of mount(2), and has had it on since 5.17).
var mountOptions = [...]mountOption{
	{name: "acl", kind: optionSuper, super: "acl"},
	{name: "async", kind: optionSuper, super: "sync"},
	{name: "atime", kind: optionAtime, clear: true, flag: MOUNT_ATTR_NOATIME},
	{name: "bind", kind: optionBind},
	{name: "defaults", kind: optionNothing},
	{name: "dev", kind: optionAttr, clear: true, flag: MOUNT_ATTR_NODEV},
	{name: "diratime", kind: optionAttr, clear: true, flag: MOUNT_ATTR_NODIRATIME},
	{name: "dirsync", kind: optionSuper, super: "dirsync"},
	{name: "exec", kind: optionAttr, clear: true, flag: MOUNT_ATTR_NOEXEC},
	{name: "idmap", kind: optionIDMap},
	{name: "iversion", kind: optionNothing},
	{name: "lazytime", kind: optionSuper, super: "lazytime"},
	{name: "loud", kind: optionNothing},
	{name: "mand", kind: optionSuper, super: "mand"},
	{name: "noacl", kind: optionSuper, super: "acl"},
	{name: "noatime", kind: optionAtime, flag: MOUNT_ATTR_NOATIME},
	{name: "nodev", kind: optionAttr, flag: MOUNT_ATTR_NODEV},
	{name: "nodiratime", kind: optionAttr, flag: MOUNT_ATTR_NODIRATIME},
	{name: "noexec", kind: optionAttr, flag: MOUNT_ATTR_NOEXEC},
	{name: "noiversion", kind: optionNothing},
	{name: "nolazytime", kind: optionSuper, super: "lazytime"},
	{name: "nomand", kind: optionSuper, super: "mand"},
	{name: "norelatime", kind: optionAtime, clear: true, flag: MOUNT_ATTR_RELATIME},
	{name: "nostrictatime", kind: optionAtime, clear: true, flag: MOUNT_ATTR_STRICTATIME},
	{name: "nosuid", kind: optionAttr, flag: MOUNT_ATTR_NOSUID},
	{name: "nosymfollow", kind: optionAttr, flag: MOUNT_ATTR_NOSYMFOLLOW},
	{name: "private", kind: optionPropagation, flag: MS_PRIVATE},
	{name: "ratime", kind: optionAtime, rec: true, clear: true, flag: MOUNT_ATTR_NOATIME},
	{name: "rbind", kind: optionBind, rec: true},
	{name: "rdev", kind: optionAttr, rec: true, clear: true, flag: MOUNT_ATTR_NODEV},
	{name: "rdiratime", kind: optionAttr, rec: true, clear: true, flag: MOUNT_ATTR_NODIRATIME},
	{name: "relatime", kind: optionAtime, flag: MOUNT_ATTR_RELATIME},
	{name: "remount", kind: optionRemount},
	{name: "rexec", kind: optionAttr, rec: true, clear: true, flag: MOUNT_ATTR_NOEXEC},
	{name: "ridmap", kind: optionIDMap, rec: true},
	{name: "rnoatime", kind: optionAtime, rec: true, flag: MOUNT_ATTR_NOATIME},
	{name: "rnodev", kind: optionAttr, rec: true, flag: MOUNT_ATTR_NODEV},
	{name: "rnodiratime", kind: optionAttr, rec: true, flag: MOUNT_ATTR_NODIRATIME},
	{name: "rnoexec", kind: optionAttr, rec: true, flag: MOUNT_ATTR_NOEXEC},
	{name: "rnorelatime", kind: optionAtime, rec: true, clear: true, flag: MOUNT_ATTR_RELATIME},
	{name: "rnostrictatime", kind: optionAtime, rec: true, clear: true, flag: MOUNT_ATTR_STRICTATIME},
	{name: "rnosuid", kind: optionAttr, rec: true, flag: MOUNT_ATTR_NOSUID},
	{name: "rnosymfollow", kind: optionAttr, rec: true, flag: MOUNT_ATTR_NOSYMFOLLOW},
	{name: "ro", kind: optionAttr, flag: MOUNT_ATTR_RDONLY, super: "ro"},
	{name: "rprivate", kind: optionPropagation, flag: MS_PRIVATE | MS_REC},
	{name: "rrelatime", kind: optionAtime, rec: true, flag: MOUNT_ATTR_RELATIME},
	{name: "rro", kind: optionAttr, rec: true, flag: MOUNT_ATTR_RDONLY},
	{name: "rrw", kind: optionAttr, rec: true, clear: true, flag: MOUNT_ATTR_RDONLY},
	{name: "rshared", kind: optionPropagation, flag: MS_SHARED | MS_REC},
	{name: "rslave", kind: optionPropagation, flag: MS_SLAVE | MS_REC},
	{name: "rstrictatime", kind: optionAtime, rec: true, flag: MOUNT_ATTR_STRICTATIME},
	{name: "rsuid", kind: optionAttr, rec: true, clear: true, flag: MOUNT_ATTR_NOSUID},
	{name: "rsymfollow", kind: optionAttr, rec: true, clear: true, flag: MOUNT_ATTR_NOSYMFOLLOW},
	{name: "runbindable", kind: optionPropagation, flag: MS_UNBINDABLE | MS_REC},
	{name: "rw", kind: optionAttr, clear: true, flag: MOUNT_ATTR_RDONLY, super: "ro"},
	{name: "shared", kind: optionPropagation, flag: MS_SHARED},
	{name: "silent", kind: optionNothing},
	{name: "slave", kind: optionPropagation, flag: MS_SLAVE},
	{name: "strictatime", kind: optionAtime, flag: MOUNT_ATTR_STRICTATIME},
	{name: "suid", kind: optionAttr, clear: true, flag: MOUNT_ATTR_NOSUID},
	{name: "symfollow", kind: optionAttr, clear: true, flag: MOUNT_ATTR_NOSYMFOLLOW},
	{name: "sync", kind: optionSuper, super: "sync"},
	{name: "tmpcopyup", kind: optionCopyUp},
	{name: "unbindable", kind: optionPropagation, flag: MS_UNBINDABLE},
}

// MountOptionNames lists every option known here, sorted, as `features` reports
// them.
func MountOptionNames() []string {
	names := make([]string, len(mountOptions))
	for i := range mountOptions {
		names[i] = mountOptions[i].name
	}
	return names
}

// ParseMountOptions sorts a mount's options into what they mean. Where two
// contradict each other the later one wins, as in mount(8). It cannot fail:
// what it does not know belongs to the filesystem, whose refusal names it.
func ParseMountOptions(options []string) MountOptions {
	var m MountOptions
	for _, o := range options {
		if known := findMountOption(o); known != nil {
			m.apply(known)
		} else {
			m.Data = append(m.Data, o)
		}
	}
	return m
}

func findMountOption(name string) *mountOption {
	low, high := 0, len(mountOptions)
	for low < high {
		mid := int(uint(low+high) >> 1)
		if mountOptions[mid].name < name {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if low < len(mountOptions) && mountOptions[low].name == name {
		return &mountOptions[low]
	}
	return nil
}

func (m *MountOptions) apply(o *mountOption) {
	switch o.kind {
	case optionAttr:
		m.applyAttr(o)
	case optionAtime:
		m.applyAtime(o)
	case optionPropagation:
		m.Propagation = append(m.Propagation, o.flag)
	case optionBind:
		m.Bind = true
		m.Recursive = m.Recursive || o.rec
	case optionRemount:
		m.Remount = true
	case optionCopyUp:
		m.CopyUp = true
	case optionIDMap:
		m.IDMap, m.RecIDMap = true, o.rec
	}
	if o.super != "" {
		m.applySuper(o)
	}
}

// applySuper replaces an earlier flag of the same group.
func (m *MountOptions) applySuper(o *mountOption) {
	for i, name := range m.Super {
		if known := findMountOption(name); known != nil && known.super == o.super {
			m.Super = append(m.Super[:i], m.Super[i+1:]...)
			break
		}
	}
	m.Super = append(m.Super, o.name)
}

func (m *MountOptions) applyAttr(o *mountOption) {
	set, clear := &m.AttrSet, &m.AttrClear
	if o.rec {
		// The whole tree includes its top: an earlier word on that is void.
		*set &^= o.flag
		*clear &^= o.flag
		set, clear = &m.RecAttrSet, &m.RecAttrClear
	}
	if o.clear {
		set, clear = clear, set
	}
	*set |= o.flag
	*clear &^= o.flag
}

// applyAtime chooses one of three modes. The negative options only undo their
// own positive one, which leaves the kernel's default, relatime; norelatime,
// the opposite of that default, has meant nothing since relatime became it
// (2.6.30).
func (m *MountOptions) applyAtime(o *mountOption) {
	set, clear := &m.AttrSet, &m.AttrClear
	if o.rec {
		*set &^= MOUNT_ATTR__ATIME
		*clear &^= MOUNT_ATTR__ATIME
		set, clear = &m.RecAttrSet, &m.RecAttrClear
	}
	mode, chosen := *set&MOUNT_ATTR__ATIME, *clear&MOUNT_ATTR__ATIME != 0
	switch {
	case !o.clear:
		*set = *set&^MOUNT_ATTR__ATIME | o.flag
		*clear |= MOUNT_ATTR__ATIME
	case o.flag == MOUNT_ATTR_RELATIME:
		if chosen && mode == MOUNT_ATTR_RELATIME {
			*clear &^= MOUNT_ATTR__ATIME
		}
	case !chosen || mode == o.flag:
		*set &^= MOUNT_ATTR__ATIME
		*clear |= MOUNT_ATTR__ATIME
	}
}
