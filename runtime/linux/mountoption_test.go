package linux

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestMountOptionsSorted(t *testing.T) {
	if !slices.IsSorted(MountOptionNames()) {
		t.Error("the table is not sorted: look-ups would miss")
	}
}

// The specification's own table is the measure.
func TestMountOptionsComplete(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/opencontainers/runtime-spec").Output()
	if err != nil {
		t.Fatalf("locate the runtime-spec module: %v", err)
	}
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "config.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^ `(\\w+) *` +\\| (MUST|SHOULD|MAY) ").FindAllSubmatch(text, -1)
	if len(rows) < 60 {
		t.Fatalf("only %d options found in config.md", len(rows))
	}
	for _, row := range rows {
		if findMountOption(string(row[1])) == nil {
			t.Errorf("%s (%s) is missing", row[1], row[2])
		}
	}
	// Runc has three more: acl, noacl, and rnodev, which is missing there by oversight
	// as rdev is in the table.
	if len(rows)+3 != len(mountOptions) {
		t.Errorf("%d options here, %d in config.md", len(mountOptions), len(rows))
	}
}

func TestParseMountOptions(t *testing.T) {
	for in, want := range map[string]MountOptions{
		"":         {},
		"defaults": {},
		"nosuid,noexec,nodev": {
			AttrSet: MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NODEV,
		},
		"nosuid,suid":                  {AttrClear: MOUNT_ATTR_NOSUID},
		"suid,nosuid":                  {AttrSet: MOUNT_ATTR_NOSUID},
		"ro":                           {AttrSet: MOUNT_ATTR_RDONLY, Super: []string{"ro"}},
		"ro,rw":                        {AttrClear: MOUNT_ATTR_RDONLY, Super: []string{"rw"}},
		"sync,dirsync,async":           {Super: []string{"dirsync", "async"}},
		"rbind,ro":                     {Bind: true, Recursive: true, AttrSet: MOUNT_ATTR_RDONLY, Super: []string{"ro"}},
		"bind,rprivate,rshared":        {Bind: true, Propagation: []uint64{MS_PRIVATE | MS_REC, MS_SHARED | MS_REC}},
		"noatime":                      {AttrSet: MOUNT_ATTR_NOATIME, AttrClear: MOUNT_ATTR__ATIME},
		"noatime,strictatime":          {AttrSet: MOUNT_ATTR_STRICTATIME, AttrClear: MOUNT_ATTR__ATIME},
		"strictatime,relatime":         {AttrClear: MOUNT_ATTR__ATIME},
		"noatime,atime":                {AttrClear: MOUNT_ATTR__ATIME},
		"strictatime,atime":            {AttrSet: MOUNT_ATTR_STRICTATIME, AttrClear: MOUNT_ATTR__ATIME},
		"strictatime,nostrictatime":    {AttrClear: MOUNT_ATTR__ATIME},
		"norelatime":                   {},
		"relatime,norelatime":          {},
		"noatime,norelatime":           {AttrSet: MOUNT_ATTR_NOATIME, AttrClear: MOUNT_ATTR__ATIME},
		"nodiratime":                   {AttrSet: MOUNT_ATTR_NODIRATIME},
		"rro,rnosuid":                  {RecAttrSet: MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID},
		"rw,rro":                       {RecAttrSet: MOUNT_ATTR_RDONLY, Super: []string{"rw"}},
		"rro,rw":                       {RecAttrSet: MOUNT_ATTR_RDONLY, AttrClear: MOUNT_ATTR_RDONLY, Super: []string{"rw"}},
		"rro,rrw":                      {RecAttrClear: MOUNT_ATTR_RDONLY},
		"noatime,rstrictatime":         {RecAttrSet: MOUNT_ATTR_STRICTATIME, RecAttrClear: MOUNT_ATTR__ATIME},
		"remount,bind":                 {Remount: true, Bind: true},
		"idmap":                        {IDMap: true},
		"ridmap":                       {IDMap: true, RecIDMap: true},
		"tmpcopyup,size=65536k,mode=0": {CopyUp: true, Data: []string{"size=65536k", "mode=0"}},
		"lazytime,silent,loud,iversion,noiversion,mand,nomand": {Super: []string{"lazytime", "nomand"}},
		"acl,sync,noacl": {Super: []string{"sync", "noacl"}},
		"nosymfollow,RO": {AttrSet: MOUNT_ATTR_NOSYMFOLLOW, Data: []string{"RO"}},
	} {
		var options []string
		if in != "" {
			options = strings.Split(in, ",")
		}
		if got := ParseMountOptions(options); !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", in, got, want)
		}
	}
}

// Whatever the options, the masks are such as mount_setattr(2) accepts.
func FuzzParseMountOptions(f *testing.F) {
	f.Add("noatime,ratime,rro,rw,size=1")
	f.Add("relatime,norelatime,rstrictatime,rnostrictatime,atime")
	f.Fuzz(func(t *testing.T, s string) {
		options := strings.Split(s, ",")
		m := ParseMountOptions(options)
		for _, masks := range [][2]uint64{{m.AttrSet, m.AttrClear}, {m.RecAttrSet, m.RecAttrClear}} {
			set, clear := masks[0], masks[1]
			if set&clear&^MOUNT_ATTR__ATIME != 0 {
				t.Errorf("%s: %#x both set and cleared", s, set&clear)
			}
			atime := clear & MOUNT_ATTR__ATIME
			if atime != 0 && atime != MOUNT_ATTR__ATIME || set&MOUNT_ATTR__ATIME != 0 && atime == 0 {
				t.Errorf("%s: atime set %#x, clear %#x", s, set, clear)
			}
		}
		if len(m.Data) > len(options) || len(m.Super) > 6 {
			t.Errorf("%s: %+v", s, m)
		}
	})
}
