package layer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/tare-oci/tare/image/layer/tarstream"
)

// IDRange maps Size ids, from ContainerID on in a container, to those from HostID on outside of it.
type IDRange struct {
	ContainerID, HostID, Size uint32
}

// ParseIDRange reads CONTAINER:HOST:SIZE, decimal numbers, as umoci and docker have it; CONTAINER:HOST maps one id.
func ParseIDRange(s string) (IDRange, error) {
	r, err := parseIDRange(s)
	if err != nil {
		return IDRange{}, fmt.Errorf("id mapping %.100q: %w", s, err)
	}
	return r, nil
}

func parseIDRange(s string) (r IDRange, err error) {
	fields := strings.Split(s, ":")
	if len(fields) != 2 && len(fields) != 3 {
		return r, errors.New("want CONTAINER:HOST:SIZE")
	}
	r.Size = 1
	for i, to := range []*uint32{&r.ContainerID, &r.HostID, &r.Size}[:len(fields)] {
		n, err := strconv.ParseUint(fields[i], 10, 32)
		if err != nil {
			return IDRange{}, errors.New("want CONTAINER:HOST:SIZE, three numbers below 2^32")
		}
		*to = uint32(n)
	}
	switch {
	case r.Size == 0:
		return IDRange{}, errors.New("it maps nothing: its size is 0")
	// The largest number is no id (chown's "leave it").
	case uint64(r.ContainerID)+uint64(r.Size) > math.MaxUint32, uint64(r.HostID)+uint64(r.Size) > math.MaxUint32:
		return IDRange{}, errors.New("it goes beyond the largest id, 4294967294")
	}
	return r, nil
}

// String is what ParseIDRange reads.
func (r IDRange) String() string { return fmt.Sprintf("%d:%d:%d", r.ContainerID, r.HostID, r.Size) }

// IDMap is how the ids of a container are mapped; what no range has is not mapped, and nothing at all maps each id to
// itself. Where ranges overlap, the first counts.
type IDMap []IDRange

// ErrNotMapped says that an id map has no place for an id.
var ErrNotMapped = errors.New("id is not mapped")

// ToHost is the id outside of the container; an error with ErrNotMapped if there is none.
func (m IDMap) ToHost(id uint32) (uint32, error) {
	for _, r := range m {
		if id >= r.ContainerID && id-r.ContainerID < r.Size {
			return r.HostID + (id - r.ContainerID), nil
		}
	}
	if len(m) == 0 {
		return id, nil
	}
	return 0, fmt.Errorf("%w: %d in the container", ErrNotMapped, id)
}

// ToContainer is ToHost's other direction.
func (m IDMap) ToContainer(id uint32) (uint32, error) {
	for _, r := range m {
		if id >= r.HostID && id-r.HostID < r.Size {
			return r.ContainerID + (id - r.HostID), nil
		}
	}
	if len(m) == 0 {
		return id, nil
	}
	return 0, fmt.Errorf("%w: %d on this machine", ErrNotMapped, id)
}

// OwnerXattr keeps the owner that a layer names of a file which could not be given it: see Options.KeepOwners. It is what
// umoci and runrootless use, as the Rootless Containers project has defined it.
const OwnerXattr = "user.rootlesscontainers"

// noID stands for an owner that is root, which needs not be told.
const noID = math.MaxUint32

// EncodeOwner is the value of OwnerXattr: a protocol buffer with the fields uid (1) and gid (2), which are varints. It is
// nil for root, who needs no telling.
func EncodeOwner(uid, gid uint32) []byte {
	if uid == 0 && gid == 0 {
		return nil
	}
	var b []byte
	for i, id := range []uint32{uid, gid} {
		if id == 0 {
			id = noID
		}
		b = append(b, byte(i+1)<<3) // wire type 0
		b = binary.AppendUvarint(b, uint64(id))
	}
	return b
}

// DecodeOwner reads the value of OwnerXattr. Fields that it does not know, and a missing one, are errors: something else
// was written there.
func DecodeOwner(value []byte) (uid, gid uint32, err error) {
	ids := [2]uint32{noID, noID}
	for rest := value; len(rest) > 0; {
		field := rest[0]
		n, size := binary.Uvarint(rest[1:])
		if field&7 != 0 || field>>3 < 1 || field>>3 > 2 || size <= 0 || n > math.MaxUint32 {
			return 0, 0, fmt.Errorf("%s: not an owner: %.32q", OwnerXattr, value)
		}
		ids[field>>3-1] = uint32(n)
		rest = rest[1+size:]
	}
	for i := range ids {
		if ids[i] == noID {
			ids[i] = 0
		}
	}
	return ids[0], ids[1], nil
}

// keepOwner has an entry's owner kept as an extended attribute. One of that name that the layer brings is not taken: it
// would give the file that owner when the tree becomes a layer again.
func keepOwner(h *tarstream.Header) {
	kept := h.Xattrs[:0:0]
	for _, x := range h.Xattrs {
		if x.Name != OwnerXattr {
			kept = append(kept, x)
		}
	}
	h.Xattrs = kept
	const max = 1<<32 - 1
	if h.UID >= max || h.GID >= max || h.Type == tarstream.TypeLink {
		return // the first is refused elsewhere; a hard link's file has its attributes from another entry
	}
	if value := EncodeOwner(uint32(h.UID), uint32(h.GID)); value != nil {
		h.Xattrs = append(h.Xattrs, tarstream.Xattr{Name: OwnerXattr, Value: value})
	}
}
