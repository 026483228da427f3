package layer

import (
	"errors"
	"fmt"
	"hash"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Compression is how a layer's archive is packed into its blob.
type Compression int

const (
	Gzip         Compression = iota // what every tool reads
	Zstd                            // smaller and quicker; containerd, Podman and Docker read it since 2020 or so
	Uncompressed                    // the archive itself
)

// compressions is the one table of them.
var compressions = [...]struct {
	name, mediaType string
	levels          int // from 1 to this; 0 where there are none
}{
	Gzip:         {"gzip", v1.MediaTypeImageLayerGzip, 9},
	Zstd:         {"zstd", v1.MediaTypeImageLayerZstd, 22},
	Uncompressed: {"none", v1.MediaTypeImageLayer, 0},
}

// String is the name that ParseCompression reads.
func (c Compression) String() string { return compressions[c].name }

// MediaType is that of a layer packed so (layer.md).
func (c Compression) MediaType() string { return compressions[c].mediaType }

// ParseCompression reads gzip, zstd or none.
func ParseCompression(name string) (Compression, error) {
	for c, row := range compressions {
		if row.name == name {
			return Compression(c), nil
		}
	}
	return 0, fmt.Errorf("compression %.100q: want gzip, zstd or none", name)
}

// PackOptions are how an archive becomes a blob. The zero value is gzip at its usual level.
type PackOptions struct {
	Compression Compression
	// Level is the compression's own: 1 to 9 for gzip, 1 to 22 for zstd (of which the library has four). 0 is its default.
	Level int
	// Workers is how many goroutines compress gzip; 0 is one for each processor. The blob does not depend on it.
	Workers int
}

// Check says what is wrong with options that come from outside.
func (o PackOptions) Check() error {
	if o.Compression < 0 || int(o.Compression) >= len(compressions) {
		return fmt.Errorf("compression %d is unknown", o.Compression)
	}
	if row := compressions[o.Compression]; o.Level < 0 || o.Level > row.levels {
		if row.levels == 0 {
			return fmt.Errorf("compression level %d: there are none without compression", o.Level)
		}
		return fmt.Errorf("compression level %d: %s has 1 to %d", o.Level, row.name, row.levels)
	}
	return nil
}

// Written says what was written: what a descriptor and a config need to know.
type Written struct {
	MediaType    string
	Digest       digest.Digest // of the blob
	SizeBytes    int64
	DiffID       digest.Digest // of the uncompressed archive
	ArchiveBytes int64         // of the uncompressed archive
}

// Descriptor is that of the blob.
func (w Written) Descriptor() v1.Descriptor {
	return v1.Descriptor{MediaType: w.MediaType, Digest: w.Digest, Size: w.SizeBytes}
}

// A Packer is written a layer's tar archive and writes the layer's blob. The same archive and options give the same blob, on
// every machine and whatever the number of its processors. Both are hashed on the way, beside compression:
//
//	Write ─▶ chunk ─┬▶ hash of the archive (DiffID)
//	                └▶ compression on all processors ─▶ in order ─▶ hash of the blob ─▶ w
//
// It is not for concurrent use.
type Packer struct {
	options    PackOptions
	compressor io.WriteCloser
	blob       *hashingWriter
	diff       hash.Hash
	archive    int64
	chunks     [4]packChunk
	current    int
	sums       chan *packChunk
	summing    sync.WaitGroup
	closed     bool
}

// packChunk is a piece of the archive, in use by the hash until hashed is done.
type packChunk struct {
	buf    []byte
	hashed sync.WaitGroup
}

const packChunkBytes = 256 << 10

// NewPacker returns a Packer to w. Close must be called, whatever happens: it ends the goroutines.
func NewPacker(w io.Writer, o PackOptions) (*Packer, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	p := &Packer{options: o, blob: &hashingWriter{w: w, hash: digest.Canonical.Hash()}, diff: digest.Canonical.Hash(), sums: make(chan *packChunk, 4)}
	var err error
	if p.compressor, err = compressTo(p.blob, o); err != nil {
		return nil, err
	}
	p.summing.Go(func() {
		for c := range p.sums {
			p.diff.Write(c.buf)
			c.hashed.Done()
		}
	})
	return p, nil
}

func compressTo(w io.Writer, o PackOptions) (io.WriteCloser, error) {
	switch o.Compression {
	case Zstd:
		level := zstd.SpeedDefault
		if o.Level > 0 {
			level = zstd.EncoderLevelFromZstd(o.Level)
		}
		// A fixed number, so that no machine takes another path through the encoder than the next.
		return zstd.NewWriter(w, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(2), zstd.WithLowerEncoderMem(true), zstd.WithZeroFrames(true))
	case Uncompressed:
		return nopCloser{w}, nil
	}
	return newGzipWriter(w, o.Level, o.Workers)
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// Write takes a part of the archive.
func (p *Packer) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		c := &p.chunks[p.current]
		if c.buf == nil {
			c.buf = make([]byte, 0, packChunkBytes)
		}
		m := min(len(b), packChunkBytes-len(c.buf))
		c.buf = append(c.buf, b[:m]...)
		b, n = b[m:], n+m
		if len(c.buf) == packChunkBytes {
			if err := p.flush(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// flush passes the chunk on and takes the next, when its hash is done.
func (p *Packer) flush() error {
	c := &p.chunks[p.current]
	c.hashed.Add(1)
	p.sums <- c
	p.archive += int64(len(c.buf))
	_, err := p.compressor.Write(c.buf)
	p.current = (p.current + 1) % len(p.chunks)
	next := &p.chunks[p.current]
	next.hashed.Wait()
	next.buf = next.buf[:0]
	return err
}

// Close ends the blob; it does not close what it is written to. Called again, or after a failed Write, it only cleans up.
func (p *Packer) Close() (Written, error) {
	if p.closed {
		return Written{}, errors.New("layer is closed already")
	}
	p.closed = true
	err := p.flush()
	err = errors.Join(err, p.compressor.Close())
	close(p.sums)
	p.summing.Wait()
	if err != nil {
		return Written{}, err
	}
	return Written{
		MediaType: p.options.Compression.MediaType(),
		Digest:    digest.NewDigest(digest.Canonical, p.blob.hash), SizeBytes: p.blob.n,
		DiffID: digest.NewDigest(digest.Canonical, p.diff), ArchiveBytes: p.archive,
	}, nil
}

// hashingWriter hashes and counts what is written through it.
type hashingWriter struct {
	w    io.Writer
	hash hash.Hash
	n    int64
}

func (h *hashingWriter) Write(b []byte) (int, error) {
	n, err := h.w.Write(b)
	h.hash.Write(b[:n])
	h.n += int64(n)
	return n, err
}
