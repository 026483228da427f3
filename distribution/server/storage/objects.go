package storage

import (
	"context"
	"errors"
	"io"
	"time"
)

// Objects is a driver: a flat space of named byte strings, and streams that
// become one. Package storagetest is its contract as tests.
//
// A key is a slash-separated path of elements of 1 to 255 bytes, none of them
// "." or "..", and no key is a prefix element-wise of another. Methods are safe
// for concurrent use. Those that name an object or stream which is not there
// return an error that is ErrNotExist.
type Objects interface {
	// Get reads a small object; one larger than limit is an error. The caller must
	// not change what it gets, which may be the driver's own copy.
	Get(ctx context.Context, key string, limit int64) ([]byte, error)
	// Open reads an object of any size from where the caller seeks to.
	Open(ctx context.Context, key string) (r io.ReadSeekCloser, sizeBytes int64, err error)
	// Stat returns an object's size, and when it was last written.
	Stat(ctx context.Context, key string) (Info, error)
	// Put writes an object, or replaces it: a reader sees the old or the new
	// whole. When Put returns, the object survives a crash of the machine.
	Put(ctx context.Context, key string, data []byte) error
	// PutAll is Put for several, one after the other, and may save work by it:
	// where it fails, those before may be written.
	PutAll(ctx context.Context, objects []Object) error
	// PutScratch is Put for what may be lost if the machine crashes, but not if
	// the process does.
	PutScratch(ctx context.Context, key string, data []byte) error
	// PutNew is Put of an object that is not there; ErrExist says that it is.
	PutNew(ctx context.Context, key string, data []byte) error
	// Update replaces an object by what change makes of it, of nil if there is
	// none: no two updates of an object come between each other. change may be
	// called several times; its error ends the update, and is returned. What is
	// written may be lost if the machine crashes, as with PutScratch.
	Update(ctx context.Context, key string, limit int64, change func(old []byte) ([]byte, error)) error
	// Move gives an object another key, replacing what has it. ErrBusy says that the
	// object was written meanwhile, and stays where it is.
	Move(ctx context.Context, from, to string) error
	// Delete removes an object.
	Delete(ctx context.Context, key string) error
	// DeleteScratch is Delete of what PutScratch wrote, and need not survive a
	// crash of the machine either.
	DeleteScratch(ctx context.Context, key string) error
	// List returns up to n names of what is directly below dir and sorts after
	// the name after, in byte order. A dir without anything is an empty list.
	List(ctx context.Context, dir, after string, n int) ([]string, error)

	// Check reports why objects cannot be read and written, if they cannot.
	Check(ctx context.Context) error

	// Lock gives a name to one holder at a time among all processes that use the
	// objects; ErrBusy says that another has it. It ends with the process.
	Lock(ctx context.Context, name string) (release func(), err error)

	// AppendStream writes r to the stream id from a mark on, whose zero value
	// begins the stream; bytes there were beyond it are dropped. It returns the
	// mark behind those of r's bytes that are kept, also beside an error: a later
	// call can go on from there. Callers hold a Lock, so that only one call at a
	// time is made for an id; where a lock can be lost without its holder noticing,
	// ErrBusy says that another has written meanwhile, and ErrOffset that from is
	// a mark whose bytes another has replaced. ErrNoSpace says that the device is
	// full, and that nothing of r was kept.
	AppendStream(ctx context.Context, id string, from Mark, r io.Reader) (Mark, error)
	// CommitStream makes what the stream has before a mark the object key,
	// replacing it if it exists, and ends the stream. It is as durable as Put.
	CommitStream(ctx context.Context, id string, at Mark, key string) error
	// DiscardStream ends the stream; one that does not exist is no error.
	DiscardStream(ctx context.Context, id string) error

	// Tidy removes what a process that died in the middle of a call has left, if
	// it was written before the given time. It may also end streams of which
	// nothing was written since.
	Tidy(ctx context.Context, before time.Time) error
}

// Redirector is what a driver may be, too: one that lets others read an object
// by a URL, for some time.
type Redirector interface {
	URL(key string, life time.Duration) (string, error)
}

// Mark is a place in a stream, of those bytes that were there when it was made.
type Mark struct {
	Offset int64 `json:"offset"`
	// Writer tells the call that wrote the last byte before Offset, where a
	// driver has to know.
	Writer string `json:"writer,omitempty"`
}

// Object is one of those for PutAll.
type Object struct {
	Key  string
	Data []byte
}

// Info is what a driver knows of an object without reading it.
type Info struct {
	SizeBytes int64
	Modified  time.Time
}

// What a Store and an Objects driver report.
var (
	ErrNotExist = errors.New("does not exist")
	ErrExist    = errors.New("exists already")
	ErrFixed    = errors.New("the tag may not be changed")
	ErrNoSpace  = errors.New("no space left")
	ErrBusy     = errors.New("in use by another request")
	ErrOffset   = errors.New("wrong offset")
	ErrTooMany  = errors.New("too many at a time")
	ErrDigest   = errors.New("content does not have the digest")
)
