package changeset

import (
	"fmt"
	"strings"

	"github.com/tare-oci/tare/safepath"
)

// Options say what of a tree becomes part of a changeset, and how.
type Options struct {
	// Mask has paths whose changes, and those of all below them, are left out: where volumes were mounted, say. They are
	// taken relative to the root.
	Mask []string
	// OverlayUser says that overlayfs's marks are user.overlay.*, of a mount with userxattr, not trusted.overlay.*.
	OverlayUser bool
	// MapID turns the owner that a file has into the one that the layer names; nil leaves it as it is.
	MapID func(uid, gid uint32) (mappedUID, mappedGID uint32, err error)
	// Rootless takes the owner from layer.OwnerXattr, where it was kept if the file could not be given to it.
	Rootless bool
	// LatestTime, in seconds since 1970, takes the place of times after it: SOURCE_DATE_EPOCH. nil leaves them.
	LatestTime *int64
	// Warn, if set, is told of what a layer cannot hold and is left out.
	Warn func(message string)
}

func (o *Options) warn(format string, args ...any) {
	if o.Warn != nil {
		o.Warn(fmt.Sprintf(format, args...))
	}
}

// mask are the masked names.
func (o *Options) mask() (map[string]bool, error) {
	masked := map[string]bool{}
	for _, path := range o.Mask {
		clean, err := safepath.Clean(path)
		if err != nil {
			return nil, fmt.Errorf("masked path %.300q: %w", path, err)
		}
		if clean == "." {
			return nil, fmt.Errorf("masked path %q: that is all", path)
		}
		masked[clean] = true
	}
	return masked, nil
}

// overlayPrefix begins the attributes in which overlayfs keeps its notes.
func (o *Options) overlayPrefix() string {
	if o.OverlayUser {
		return "user.overlay."
	}
	return "trusted.overlay."
}

const whiteoutPrefix = ".wh."

func isWhiteoutName(base string) bool { return strings.HasPrefix(base, whiteoutPrefix) }
