package lifecycle

import (
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/linux"
	"github.com/tare-oci/tare/runtime/plan"
)

// processFacts finds out what few configurations ask for, and only for those:
// the security modules that are there, where resctrl is mounted, and whose the
// joined namespaces are that kernel parameters or interfaces would go to.
func processFacts(s *specs.Spec, f *plan.Facts) error {
	if p := s.Process; p != nil && (p.ApparmorProfile != "" || p.SelinuxLabel != "") {
		f.Host.ProbeLSM()
	}
	if s.Linux != nil && s.Linux.IntelRdt != nil {
		var err error
		if f.Resctrl, err = resctrl(); err != nil {
			return &plan.FieldError{Field: "linux.intelRdt", Err: err}
		}
	}
	if s.Linux == nil || len(s.Linux.Sysctl)+len(s.Linux.NetDevices) == 0 {
		return nil
	}
	for i, ns := range s.Linux.Namespaces {
		info, ok := linux.Namespace(ns.Type)
		if !ok || ns.Path == "" {
			continue
		}
		ours, err := sameFile(ns.Path, "/proc/thread-self/ns/"+info.Proc)
		if err != nil {
			return &plan.FieldError{Field: fmt.Sprintf("linux.namespaces[%d].path", i), Err: err}
		}
		if ours {
			f.OwnNamespaces = append(f.OwnNamespaces, ns.Path)
		}
	}
	return nil
}

func sameFile(a, b string) (bool, error) {
	var st [2]unix.Stat_t
	for i, path := range []string{a, b} {
		if err := unix.Stat(path, &st[i]); err != nil {
			return false, &os.PathError{Op: "stat", Path: path, Err: err}
		}
	}
	return st[0].Dev == st[1].Dev && st[0].Ino == st[1].Ino, nil
}
