package criu

import (
	"errors"
	"fmt"
	"os"
)

// An Operation is what CRIU is asked to do: criu_req_type.
type Operation int

// The operations used here.
const (
	Dump    Operation = 1
	Restore Operation = 2
	PreDump Operation = 4
	notify  Operation = 6
	version Operation = 10
)

// String is the operation's name in messages.
func (o Operation) String() string {
	switch o {
	case Dump:
		return "dump"
	case Restore:
		return "restore"
	case PreDump:
		return "pre-dump"
	case notify:
		return "notify"
	case version:
		return "version"
	}
	return fmt.Sprintf("operation %d", int(o))
}

// A CgroupMode says what CRIU does about control groups: criu_cg_mode.
type CgroupMode int

// Unset leaves the choice to CRIU.
const Unset CgroupMode = 6

// ParseCgroupMode reads the value of --manage-cgroups-mode.
func ParseCgroupMode(s string) (CgroupMode, error) {
	for _, m := range [...]struct {
		name string
		mode CgroupMode
	}{{"", Unset}, {"soft", 3}, {"full", 4}, {"strict", 5}, {"ignore", 0}} {
		if m.name == s {
			return m.mode, nil
		}
	}
	return 0, errors.New("invalid manage-cgroups-mode value")
}

// Options are criu_opts, as far as containers need them.
type Options struct {
	Images *os.File // directory
	Work   *os.File // directory of the log; nil is Images
	Log    string   // file name
	Root   string
	PID    int // of the process to dump

	LeaveRunning    bool
	ExtUnixSk       bool
	TCPEstablished  bool
	TCPSkipInFlight bool
	EvasiveDevices  bool
	ShellJob        bool
	FileLocks       bool
	LinkRemap       bool
	AutoDedup       bool
	TrackMem        bool
	OrphanPTSMaster bool
	RestoreSibling  bool

	Parent       string // directory of an earlier dump, relative to Images
	PageServer   PageServer
	Cgroups      CgroupMode
	CgroupRoots  []Pair // controllers and paths
	FreezeCgroup string
	EmptyNS      uint32 // CLONE_NEW*
	// External names what does not belong to the processes: "mnt[KEY]:VALUE"…
	External []string
	// Inherit gives what is external a descriptor of CRIU's.
	Inherit []Inherited
	// Join are namespaces to join, and their files.
	Join            []Pair
	ConfigFile      string
	LSMProfile      string
	LSMMountContext string
}

// PageServer is where memory goes instead of to files.
type PageServer struct {
	Address string
	Port    int
}

// A Pair is a name and its value.
type Pair struct{ Key, Value string }

// Inherited is a descriptor that stands for something external.
type Inherited struct {
	Key string
	FD  int
}

const logLevel = 4 // everything: it says why

func (o *Options) encode() message {
	var m message
	m.int(1, int64(o.Images.Fd()))
	if o.PID != 0 {
		m.int(2, int64(o.PID))
	}
	for _, b := range [...]struct {
		field int
		set   bool
	}{
		{3, o.LeaveRunning}, {4, o.ExtUnixSk}, {5, o.TCPEstablished}, {6, o.EvasiveDevices}, {7, o.ShellJob}, {8, o.FileLocks},
		{12, true}, // notices
		{15, o.TrackMem}, {16, o.AutoDedup}, {18, o.LinkRemap}, {24, true}, {26, o.RestoreSibling}, {46, o.TCPSkipInFlight},
		{50, o.OrphanPTSMaster},
	} {
		m.bool(b.field, b.set)
	}
	m.int(9, logLevel)
	m.optional(10, o.Log)
	if o.PageServer.Address != "" {
		var ps message
		ps.string(1, o.PageServer.Address)
		ps.int(2, int64(o.PageServer.Port))
		m.message(11, ps)
	}
	m.optional(13, o.Root)
	m.optional(14, o.Parent)
	if o.Work != nil {
		m.int(17, int64(o.Work.Fd()))
	}
	m.pairs(25, o.CgroupRoots)
	for _, in := range o.Inherit {
		var sub message
		sub.string(1, in.Key)
		sub.int(2, int64(in.FD))
		m.message(27, sub)
	}
	m.int(34, int64(o.Cgroups))
	for _, e := range o.External {
		m.string(37, e)
	}
	m.int(38, int64(o.EmptyNS))
	m.pairs(39, o.Join)
	m.optional(44, o.FreezeCgroup)
	m.optional(51, o.ConfigFile)
	m.optional(53, o.LSMProfile)
	m.optional(63, o.LSMMountContext)
	return m
}

func (m *message) pairs(field int, pairs []Pair) {
	for _, p := range pairs {
		var sub message
		sub.string(1, p.Key)
		sub.string(2, p.Value)
		m.message(field, sub)
	}
}

// request encodes criu_req.
func (c *Call) request() message {
	var m message
	m.int(1, int64(c.Operation))
	if c.Operation != version {
		m.message(2, c.Options.encode())
	}
	return m
}

// goOn is the answer to a notice.
func goOn(ok bool) message {
	var m message
	m.int(1, int64(notify))
	m.bool(3, ok)
	return m
}

// A response is criu_resp.
type response struct {
	op      Operation
	success bool
	pid     int // of the restored process
	script  string
	about   int // the process that a notice is about
	errno   int
	errText string
	version Version
}

func (m message) response() (r response, err error) {
	err = m.fields(func(field int, n uint64, content message) error {
		switch field {
		case 1:
			r.op = Operation(n)
		case 2:
			r.success = n != 0
		case 4:
			return content.ints(map[int]*int{1: &r.pid})
		case 5:
			return content.fields(func(field int, n uint64, content message) error {
				switch field {
				case 1:
					r.script = string(content)
				case 2:
					r.about = int(int32(n))
				}
				return nil
			})
		case 7:
			r.errno = int(int32(n))
		case 9:
			r.errText = string(content)
		case 10:
			return content.ints(map[int]*int{1: &r.version.Major, 2: &r.version.Minor, 4: &r.version.Sub})
		}
		return nil
	})
	if err != nil {
		return r, fmt.Errorf("criu: %w", err)
	}
	return r, nil
}

// ints reads integer fields.
func (m message) ints(into map[int]*int) error {
	return m.fields(func(field int, n uint64, _ message) error {
		if p := into[field]; p != nil {
			*p = int(int32(n))
		}
		return nil
	})
}

// Version is CRIU's.
type Version struct{ Major, Minor, Sub int }

// AtLeast reports whether it is major.minor or newer.
func (v Version) AtLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

// String prints it as CRIU does.
func (v Version) String() string {
	s := fmt.Sprintf("%d.%d", v.Major, v.Minor)
	if v.Sub != 0 {
		s += fmt.Sprintf(".%d", v.Sub)
	}
	return s
}
