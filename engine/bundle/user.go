package bundle

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/safepath"
)

// The files that users and groups are looked up in.
const (
	passwdFile = "etc/passwd"
	groupFile  = "etc/group"

	maxAccountsBytes = 16 << 20
	maxLineBytes     = 1 << 20
	maxGroups        = 1 << 16 // NGROUPS_MAX
)

// LookupUser finds the user that an image's Config.User means (config.md):
// user, uid, user:group, uid:gid, uid:group or user:gid, or root if it is
// empty, by the accounts in root. Without a group, the user has the groups that
// the accounts say. A name that is not there is an error; a number need not be.
func LookupUser(root *safepath.Root, name string) (specs.User, error) {
	u, err := lookupUser(root, name)
	if err != nil {
		return specs.User{}, fmt.Errorf("user %.300q: %w", name, err)
	}
	return u, nil
}

func lookupUser(root *safepath.Root, name string) (u specs.User, err error) {
	user, group, hasGroup := strings.Cut(name, ":")
	if user == "" {
		user = "0"
	}
	uid, numeric, err := parseID(user)
	if err != nil {
		return u, err
	}
	found, err := eachAccount(root, passwdFile, 4, func(f []string) bool {
		id, ok := fieldID(f[2])
		if !ok || f[0] != user && (!numeric || id != uid) {
			return false
		}
		gid, ok := fieldID(f[3])
		if ok {
			user, u.UID, u.GID = f[0], id, gid
		}
		return ok
	})
	switch {
	case err != nil:
		return u, err
	case !found && !numeric:
		return u, fmt.Errorf("unknown user: the image's /%s has no %q", passwdFile, user)
	case !found:
		u.UID = uid
	}
	if hasGroup && group != "" {
		u.GID, err = lookupGroup(root, group)
	} else if found {
		u.AdditionalGids, err = memberships(root, user)
	}
	// Without its own group among them, a process that drops that group keeps
	// it as the only one that is not checked (CVE-2022-36109).
	if !slices.Contains(u.AdditionalGids, u.GID) {
		u.AdditionalGids = slices.Insert(u.AdditionalGids, 0, u.GID)
	}
	return u, err
}

func lookupGroup(root *safepath.Root, group string) (uint32, error) {
	gid, numeric, err := parseID(group)
	if err != nil || numeric {
		return gid, err
	}
	found, err := eachAccount(root, groupFile, 3, func(f []string) bool {
		id, ok := fieldID(f[2])
		if ok = ok && f[0] == group; ok {
			gid = id
		}
		return ok
	})
	if err == nil && !found {
		err = fmt.Errorf("unknown group: the image's /%s has no %q", groupFile, group)
	}
	return gid, err
}

// memberships are the groups that list the user.
func memberships(root *safepath.Root, user string) (gids []uint32, err error) {
	_, err = eachAccount(root, groupFile, 4, func(f []string) bool {
		for member := range strings.SplitSeq(f[3], ",") {
			if id, ok := fieldID(f[2]); ok && member == user && !slices.Contains(gids, id) {
				gids = append(gids, id)
			}
		}
		return len(gids) >= maxGroups
	})
	return gids, err
}

// parseID reads a number, if it is one.
func parseID(s string) (id uint32, numeric bool, err error) {
	if strings.Trim(s, "0123456789") != "" {
		return 0, false, nil
	}
	n, err := strconv.ParseUint(s, 10, 32)
	const none = 1<<32 - 1 // (uid_t)-1 means no user to the kernel
	if err != nil || n == none {
		return 0, true, fmt.Errorf("%.40s is not an id: the largest is %d", s, uint32(none-1))
	}
	return uint32(n), true, nil
}

func fieldID(s string) (uint32, bool) {
	id, numeric, err := parseID(s)
	return id, numeric && s != "" && err == nil
}

// eachAccount reads passwd(5) or group(5) line by line, until visit is
// satisfied. Lines with fewer fields are no accounts. An image without the file
// has no accounts.
func eachAccount(root *safepath.Root, name string, fields int, visit func(fields []string) bool) (satisfied bool, err error) {
	file, err := root.OpenRegular(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer file.Close()
	lines := bufio.NewScanner(&io.LimitedReader{R: file, N: maxAccountsBytes})
	lines.Buffer(nil, maxLineBytes)
	for lines.Scan() {
		if f := strings.Split(lines.Text(), ":"); len(f) >= fields && visit(f) {
			return true, nil
		}
	}
	if err := lines.Err(); err != nil {
		return false, fmt.Errorf("read /%s of the image: %w", name, err)
	}
	return false, nil
}
