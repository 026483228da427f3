package bundle

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/safepath"
)

// maxImageVolumes bounds the mounts that an image can cause.
const maxImageVolumes = 256

func setMounts(s *specs.Spec, c v1.ImageConfig, root *safepath.Root, o Options) error {
	s.Mounts = append(defaultMounts(), o.Mounts...)
	user := map[string]bool{}
	for _, m := range o.Mounts {
		user[m.Destination] = true
	}
	image := sortedKeys(c.Volumes)
	if len(image) > maxImageVolumes {
		return fmt.Errorf("the image has %d volumes, more than %d", len(image), maxImageVolumes)
	}
	for _, v := range o.Volumes {
		if path.IsAbs(v) && !strings.Contains(v, ":") { // one like those of images
			image = append(image, v)
			continue
		}
		m, err := ParseVolume(v)
		if err != nil {
			return err
		}
		user[m.Destination] = true
		s.Mounts = append(s.Mounts, m)
	}
	for _, destination := range image {
		destination = path.Join("/", destination)
		if user[destination] || destination == "/" {
			continue
		}
		user[destination] = true
		m, err := imageVolume(root, destination, o)
		if err != nil {
			return err
		}
		s.Mounts = append(s.Mounts, m)
	}
	return nil
}

// imageVolume is the mount for a volume that has no other place: the directory
// in the root file system, bound onto itself. So it begins with what the image
// has there, can be written where the root file system can't, and goes with it.
func imageVolume(root *safepath.Root, destination string, o Options) (specs.Mount, error) {
	if o.KeptRootfs {
		return specs.Mount{Destination: destination, Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=755"}}, nil
	}
	name, err := root.Resolve(destination)
	if err == nil {
		var dir interface{ Close() error }
		if dir, err = root.MkdirAll(name, 0o755); err == nil {
			err = dir.Close()
		}
	}
	if err != nil {
		return specs.Mount{}, fmt.Errorf("volume of the image: %w", err)
	}
	return specs.Mount{Destination: destination, Type: "bind", Source: path.Join(o.RootPath, name), Options: []string{"rbind", "rprivate"}}, nil
}

// defaultMounts are docker's.
func defaultMounts() []specs.Mount {
	mount := func(destination, kind, source, options string) specs.Mount {
		return specs.Mount{Destination: destination, Type: kind, Source: source, Options: strings.Split(options, ",")}
	}
	return []specs.Mount{
		mount("/proc", "proc", "proc", "nosuid,noexec,nodev"),
		mount("/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
		mount("/dev/pts", "devpts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
		mount("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"),
		mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid,noexec,nodev,relatime,ro"),
		mount("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
		mount("/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=65536k"),
	}
}

// ParseVolume reads SRC:DST[:OPTION,OPTION…], docker's and podman's way to
// write a bind mount.
func ParseVolume(s string) (specs.Mount, error) {
	m, err := parseVolume(s)
	if err != nil {
		return specs.Mount{}, fmt.Errorf("volume %.300q: %w", s, err)
	}
	return m, nil
}

func parseVolume(s string) (specs.Mount, error) {
	parts := strings.Split(s, ":")
	switch {
	case len(parts) < 2 || len(parts) > 3 || parts[0] == "" || parts[1] == "":
		return specs.Mount{}, errors.New("it must be SOURCE:DESTINATION or SOURCE:DESTINATION:OPTIONS")
	case strings.ContainsRune(s, 0):
		return specs.Mount{}, errors.New("it has a NUL")
	case !filepath.IsAbs(parts[0]):
		return specs.Mount{}, errors.New("the source must be an absolute path; volumes with names are not supported")
	case !path.IsAbs(parts[1]) || path.Clean(parts[1]) == "/":
		return specs.Mount{}, errors.New("the destination must be an absolute path other than /")
	}
	m := specs.Mount{Destination: path.Clean(parts[1]), Type: "bind", Source: filepath.Clean(parts[0])}
	bind, propagation, access := "rbind", "rprivate", ""
	if len(parts) == 3 {
		for option := range strings.SplitSeq(parts[2], ",") {
			switch option {
			case "bind", "rbind":
				bind = option
			case "private", "rprivate", "slave", "rslave", "shared", "rshared":
				propagation = option
			case "ro", "readonly":
				access = "rro" // with all that is mounted below, as docker has it since 25.0
			case "rw", "":
			case "z", "Z", "cached", "delegated", "consistent", "nocopy":
				// Of SELinux's labels, other systems and named volumes.
			default:
				return specs.Mount{}, fmt.Errorf("unknown option %q", option)
			}
		}
	}
	m.Options = []string{bind, propagation}
	if access != "" {
		m.Options = append(m.Options, access)
	}
	return m, nil
}
