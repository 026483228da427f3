package layout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image"
)

const maxNameBytes = 1024

// Name is an entry of index.json.
type Name struct {
	Name string // empty for an entry without one
	Desc v1.Descriptor
}

// index is index.json. What we don't know in it is kept as it is.
type index struct {
	fields  map[string]json.RawMessage
	entries []entry // of the field manifests
}

type entry struct {
	raw  json.RawMessage // as it was written; only there for a change
	desc v1.Descriptor
	err  error // why desc is not to be used
}

func (e *entry) name() string { return e.desc.Annotations[v1.AnnotationRefName] }

func (s *Store) readIndex() (*index, error) {
	data, err := s.readFile(indexFile, maxIndexBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New(indexFile + ": missing") // not to be taken for a name that isn't there
	}
	if err != nil {
		return nil, err
	}
	return parseIndex(data)
}

func parseIndex(data []byte) (*index, error) {
	var x index
	if err := image.Unmarshal(data, &x.fields); err != nil {
		return nil, fmt.Errorf("%s: %w", indexFile, err)
	}
	// Some readers would take such a field for ours, others would not.
	for _, ours := range []string{"schemaVersion", "manifests"} {
		for key := range x.fields {
			if key != ours && strings.EqualFold(key, ours) {
				return nil, fmt.Errorf("%s: ambiguous: the key %q is not %q", indexFile, key, ours)
			}
		}
	}
	manifests, ok := x.fields["manifests"]
	if !ok {
		return &x, nil
	}
	var descs []v1.Descriptor
	if json.Unmarshal(manifests, &descs) != nil {
		return &x, x.keepRaw() // which can tell the bad entries from the good ones
	}
	x.entries = make([]entry, len(descs))
	for i, d := range descs {
		x.entries[i] = entry{desc: d}
		x.entries[i].check(i, nil)
	}
	return &x, nil
}

// keepRaw decodes the entries one by one and keeps how they are written.
func (x *index) keepRaw() error {
	var raws []json.RawMessage
	if m, ok := x.fields["manifests"]; ok {
		if err := json.Unmarshal(m, &raws); err != nil {
			return fmt.Errorf("%s: manifests: not a list", indexFile)
		}
	}
	x.entries = make([]entry, len(raws))
	for i, raw := range raws {
		e := &x.entries[i]
		e.raw = raw
		e.check(i, json.Unmarshal(raw, &e.desc))
	}
	return nil
}

// check notes why the i-th entry can't be used.
func (e *entry) check(i int, err error) {
	if err == nil {
		err = image.CheckDescriptor(e.desc)
	}
	if err != nil {
		e.err = fmt.Errorf("%s: manifests[%d].%w", indexFile, i, err)
	}
}

func (x *index) marshal() ([]byte, error) {
	raws := make([]json.RawMessage, len(x.entries))
	for i, e := range x.entries {
		raws[i] = e.raw
	}
	manifests, err := json.Marshal(raws)
	if err != nil {
		return nil, err
	}
	fields := maps.Clone(x.fields)
	if fields == nil {
		fields = map[string]json.RawMessage{}
	}
	fields["schemaVersion"] = json.RawMessage("2")
	fields["manifests"] = manifests
	return json.Marshal(fields)
}

// changeIndex replaces index.json by what change makes of it; change says
// whether it did anything.
func (s *Store) changeIndex(ctx context.Context, change func(*index) (bool, error)) error {
	unlock, err := s.lock(ctx, lockFile, syscall.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock()
	x, err := s.readIndex()
	if err != nil {
		return err
	}
	if err := x.keepRaw(); err != nil {
		return err
	}
	if changed, err := change(x); err != nil || !changed {
		return err
	}
	data, err := x.marshal()
	if err != nil {
		return err
	}
	if len(data) > maxIndexBytes {
		return fmt.Errorf("%s: would be %d bytes, more than %d", indexFile, len(data), maxIndexBytes)
	}
	if err := s.replace(indexFile, data); err != nil {
		return fmt.Errorf("%s: %w", indexFile, plain(err))
	}
	return nil
}

// CheckName says whether an image may have this name. Any printable text
// without spaces is one; which names other tools can say, the package
// documentation tells.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("empty name")
	case len(name) > maxNameBytes:
		return fmt.Errorf("name %.40q…: longer than %d bytes", name, maxNameBytes)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' }):
		return fmt.Errorf("name %q: has a space or an unprintable character", name)
	}
	return nil
}

// Tag gives a name to a blob that is there, and takes it from the one that had
// it.
func (p *Session) Tag(ctx context.Context, name string, desc v1.Descriptor) error {
	if err := p.tag(ctx, name, desc); err != nil {
		return fmt.Errorf("tag %q in %s: %w", name, p.dir, err)
	}
	return nil
}

func (p *Session) tag(ctx context.Context, name string, desc v1.Descriptor) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if err := image.CheckDescriptor(desc); err != nil {
		return err
	}
	b, err := p.Open(ctx, desc)
	if err != nil {
		return err
	}
	b.Close()
	desc.Annotations = maps.Clone(desc.Annotations)
	if desc.Annotations == nil {
		desc.Annotations = map[string]string{}
	}
	desc.Annotations[v1.AnnotationRefName] = name
	raw, err := json.Marshal(desc)
	if err != nil {
		return err
	}
	return p.changeIndex(ctx, func(x *index) (bool, error) {
		return x.set(name, entry{raw: raw, desc: desc}), nil
	})
}

// set puts e in the place of the entry of that name, or at the end.
func (x *index) set(name string, e entry) (changed bool) {
	kept := x.entries[:0]
	placed := false
	for _, old := range x.entries {
		if old.name() != name {
			kept = append(kept, old)
			continue
		}
		if placed {
			changed = true
			continue
		}
		placed = true
		changed = changed || string(old.raw) != string(e.raw)
		kept = append(kept, e)
	}
	if x.entries = kept; !placed {
		x.entries = append(x.entries, e)
	}
	return changed || !placed
}

// AddUnnamed makes an entry without a name for a blob that is there, unless it
// has an entry, named or not: for layouts that are found by their only entry.
func (p *Session) AddUnnamed(ctx context.Context, desc v1.Descriptor) error {
	err := image.CheckDescriptor(desc)
	var b *Blob
	if err == nil {
		b, err = p.Open(ctx, desc)
	}
	if err == nil {
		b.Close()
		err = p.changeIndex(ctx, func(x *index) (bool, error) {
			raw, err := json.Marshal(desc)
			for _, e := range x.entries {
				if e.err == nil && e.desc.Digest == desc.Digest {
					return false, err
				}
			}
			x.entries = append(x.entries, entry{raw: raw, desc: desc})
			return true, err
		})
	}
	if err != nil {
		return fmt.Errorf("add %s to %s: %w", desc.Digest, p.dir, err)
	}
	return nil
}

// Untag takes a name away. The blobs stay until GC. An error with
// fs.ErrNotExist means that there is no such name.
func (s *Store) Untag(ctx context.Context, name string) error {
	goes := func(e *entry) bool { return name != "" && e.name() == name }
	if err := s.dropEntries(ctx, goes, (*index).noSuchName); err != nil {
		return fmt.Errorf("untag %q in %s: %w", name, s.dir, err)
	}
	return nil
}

// RemoveUnnamed takes the entry without a name away that AddUnnamed makes. The
// blobs stay until GC. An error with fs.ErrNotExist means that there is none.
func (s *Store) RemoveUnnamed(ctx context.Context, d digest.Digest) error {
	goes := func(e *entry) bool { return e.err == nil && e.name() == "" && e.desc.Digest == d }
	none := func(*index) error { return fmt.Errorf("no such entry: %w", fs.ErrNotExist) }
	if err := s.dropEntries(ctx, goes, none); err != nil {
		return fmt.Errorf("remove %s without a name from %s: %w", d, s.dir, err)
	}
	return nil
}

// dropEntries takes those away that go; none says what it means that none does.
func (s *Store) dropEntries(ctx context.Context, goes func(*entry) bool, none func(*index) error) error {
	return s.changeIndex(ctx, func(x *index) (bool, error) {
		kept := x.entries[:0]
		for _, e := range x.entries {
			if !goes(&e) {
				kept = append(kept, e)
			}
		}
		if len(kept) == len(x.entries) {
			return false, none(x)
		}
		x.entries = kept
		return true, nil
	})
}

// Resolve finds what a name stands for. The empty name is that of the only
// entry in a layout that has no more. An error with fs.ErrNotExist means that
// there is no such name.
func (s *Store) Resolve(ctx context.Context, name string) (v1.Descriptor, error) {
	desc, err := s.resolve(ctx, name)
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("resolve %q in %s: %w", name, s.dir, err)
	}
	return desc, nil
}

func (s *Store) resolve(ctx context.Context, name string) (v1.Descriptor, error) {
	if err := ctx.Err(); err != nil {
		return v1.Descriptor{}, err
	}
	x, err := s.readIndex()
	if err != nil {
		return v1.Descriptor{}, plain(err)
	}
	var found *entry
	for i := range x.entries {
		e := &x.entries[i]
		if name != "" && e.name() != name {
			continue
		}
		if e.err != nil {
			return v1.Descriptor{}, e.err
		}
		if found != nil && found.desc.Digest != e.desc.Digest {
			return v1.Descriptor{}, fmt.Errorf("ambiguous: %s and %s; the names are %s", found.desc.Digest, e.desc.Digest, x.names())
		}
		found = e
	}
	if found == nil {
		return v1.Descriptor{}, x.noSuchName()
	}
	return found.unnamed(), nil
}

// unnamed is the descriptor without the name, which belongs to the entry.
func (e *entry) unnamed() v1.Descriptor {
	desc := e.desc
	desc.Annotations = maps.Clone(desc.Annotations)
	delete(desc.Annotations, v1.AnnotationRefName)
	if len(desc.Annotations) == 0 {
		desc.Annotations = nil
	}
	return desc
}

// names lists the names there are, for who has asked for another.
func (x *index) names() string {
	const most = 8
	var names []string
	for _, e := range x.entries {
		if n := e.name(); n != "" && len(names) <= most {
			names = append(names, fmt.Sprintf("%.100q", n))
		}
	}
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > most:
		names[most] = "…"
	}
	return strings.Join(names, ", ")
}

func (x *index) noSuchName() error {
	return fmt.Errorf("no such name (the names are %s): %w", x.names(), fs.ErrNotExist)
}

// List returns the entries of index.json in their order. Entries that can't be
// used are left out; Fsck reports them.
func (s *Store) List(ctx context.Context) ([]Name, error) {
	x, err := s.readIndex()
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", s.dir, plain(err))
	}
	return x.list(), nil
}

func (x *index) list() (names []Name) {
	for i := range x.entries {
		if e := &x.entries[i]; e.err == nil {
			names = append(names, Name{e.name(), e.unnamed()})
		}
	}
	return names
}

// DecodeNames reads an index.json that is kept elsewhere than in a directory.
// An entry that can't be used is an error.
func DecodeNames(data []byte) ([]Name, error) {
	x, err := parseIndex(data)
	if err != nil {
		return nil, err
	}
	for _, e := range x.entries {
		if e.err != nil {
			return nil, e.err
		}
	}
	return x.list(), nil
}

// roots are the references from index.json to begin a walk with.
func (x *index) roots() ([]edge, error) {
	var roots []edge
	for i := range x.entries {
		e := &x.entries[i]
		if e.err != nil {
			return nil, e.err
		}
		roots = append(roots, edge{indexFile, fmt.Sprintf("manifests[%d]", i), e.name(), e.desc})
	}
	return roots, nil
}

// edge is one reference to a blob.
type edge struct {
	from  string // the document that refers
	field string // of it
	name  string // with which index.json refers
	desc  v1.Descriptor
}

func (e edge) String() string {
	if e.name != "" {
		return fmt.Sprintf("%s: %s (%.100q)", e.from, e.field, e.name)
	}
	return e.from + ": " + e.field
}

// walk visits every reference that can be reached from roots, and looks into
// each document once. Visit is told what came of that: an error with
// fs.ErrNotExist where the document is missing. The walk has no depth, and
// ends: each round looks into a blob that is there and was not looked into.
func (s *Store) walk(ctx context.Context, roots []edge, visit func(edge, error) error) error {
	type seenAs struct {
		digest digest.Digest
		kind   image.Kind // one blob may be called a manifest here and something else there
	}
	seen := map[seenAs]error{}
	for queue := roots; len(queue) > 0; queue = queue[1:] {
		if err := ctx.Err(); err != nil {
			return err
		}
		e := queue[0]
		key := seenAs{e.desc.Digest, image.KindOf(e.desc)}
		err, known := seen[key]
		if !known {
			var refs []image.Reference
			refs, err = s.references(ctx, e.desc)
			seen[key] = err
			for _, r := range refs {
				from := fmt.Sprintf("%s %s", image.KindOf(e.desc), e.desc.Digest)
				queue = append(queue, edge{from: from, field: r.Field, desc: r.Desc})
			}
		}
		if err := visit(e, err); err != nil {
			return err
		}
	}
	return nil
}

// references looks into a blob if it is a document. The size is the file's: a
// wrong one in a descriptor must not hide what the document refers to.
func (s *Store) references(ctx context.Context, desc v1.Descriptor) ([]image.Reference, error) {
	switch image.KindOf(desc) {
	case image.KindManifest, image.KindIndex:
	default:
		return nil, nil
	}
	st, err := s.Stat(ctx, desc.Digest)
	if err != nil {
		return nil, err
	}
	desc.Size, desc.Data = st.Size(), nil
	data, err := s.Fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	return image.References(desc, data)
}
