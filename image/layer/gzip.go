package layer

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/flate"
)

const (
	// gzipBlockBytes is what one processor compresses at a time. Smaller blocks cost size (2 % at 64 KiB), larger ones memory
	// on machines with many processors. Changing it changes every blob's digest.
	gzipBlockBytes = 256 << 10
	// gzipWindowBytes is how far back deflate refers (RFC 1951): the end of one block is the dictionary of the next, so
	// that cutting costs hardly anything.
	gzipWindowBytes = 32 << 10
)

// gzipWriter compresses one gzip member on several processors, as pigz does: block by block, each with the end of the one
// before as dictionary and flushed to a whole byte, so that the pieces follow one another in one deflate stream. Where the
// blocks are cut depends on nothing but the data.
//
// The deflate is klauspost's. It can be given a new dictionary without being made anew (ResetDict), which the standard
// library's cannot, at some 800 KB a block; and it takes half the time at the same size. It has no assembler, so that all
// architectures give the same bytes.
type gzipWriter struct {
	w       io.Writer
	current *gzipBlock
	tail    []byte // the end of the block before
	crc     uint32
	size    uint32 // modulo 2³²

	jobs   chan *gzipBlock
	order  chan *gzipBlock // bounds how many are under way
	free   chan *gzipBlock
	all    sync.WaitGroup
	failed atomic.Pointer[error] // what writing to w has come to
}

type gzipBlock struct {
	data, dict []byte
	last       bool
	out        bytes.Buffer
	err        error
	done       chan struct{}
}

func newGzipWriter(w io.Writer, level, workers int) (*gzipWriter, error) {
	if level == 0 {
		level = flate.DefaultCompression
	}
	if _, err := flate.NewWriter(io.Discard, level); err != nil {
		return nil, err
	}
	g := &gzipWriter{w: w, jobs: make(chan *gzipBlock), order: make(chan *gzipBlock, workers), free: make(chan *gzipBlock, workers+2)}
	for range workers {
		g.all.Go(func() { g.compress(level) })
	}
	g.all.Go(g.collect)
	return g, nil
}

// compress compresses blocks as they come.
func (g *gzipWriter) compress(level int) {
	var fw *flate.Writer
	for b := range g.jobs {
		b.out.Reset()
		if fw == nil {
			fw, b.err = flate.NewWriterDict(&b.out, level, b.dict)
		} else {
			fw.ResetDict(&b.out, b.dict)
		}
		if b.err == nil {
			_, b.err = fw.Write(b.data)
		}
		if b.err == nil && b.last {
			b.err = fw.Close()
		} else if b.err == nil {
			b.err = fw.Flush()
		}
		close(b.done)
	}
}

// collect writes what comes of the blocks, in their order.
func (g *gzipWriter) collect() {
	// The header says neither file name, time nor machine: 255 is an unknown system.
	_, err := g.w.Write([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255})
	for b := range g.order {
		<-b.done
		if err == nil {
			err = b.err
		}
		if err == nil {
			_, err = g.w.Write(b.out.Bytes())
		}
		if err != nil {
			g.failed.CompareAndSwap(nil, &err)
		}
		select {
		case g.free <- b:
		default:
		}
	}
}

func (g *gzipWriter) error() error {
	if err := g.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// Write implements io.Writer.
func (g *gzipWriter) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		b := g.block()
		m := min(len(p), gzipBlockBytes-len(b.data))
		b.data = append(b.data, p[:m]...)
		p, n = p[m:], n+m
		if len(b.data) == gzipBlockBytes {
			if err := g.error(); err != nil {
				return n, err
			}
			g.send(false)
		}
	}
	return n, nil
}

// block is the one that is being filled.
func (g *gzipWriter) block() *gzipBlock {
	if g.current != nil {
		return g.current
	}
	select {
	case g.current = <-g.free:
	default:
		g.current = &gzipBlock{data: make([]byte, 0, gzipBlockBytes)}
	}
	b := g.current
	b.data, b.dict, b.err, b.done = b.data[:0], append(b.dict[:0], g.tail...), nil, make(chan struct{})
	return b
}

// send gives the current block to who compresses.
func (g *gzipWriter) send(last bool) {
	b := g.block()
	g.current = nil
	b.last = last
	g.crc = crc32.Update(g.crc, crc32.IEEETable, b.data)
	g.size += uint32(len(b.data))
	g.tail = append(g.tail[:0], b.data[max(0, len(b.data)-gzipWindowBytes):]...)
	g.order <- b
	g.jobs <- b
}

// Close ends the stream and the goroutines.
func (g *gzipWriter) Close() error {
	g.send(true)
	close(g.jobs)
	close(g.order)
	g.all.Wait()
	if err := g.error(); err != nil {
		return err
	}
	var trailer [8]byte
	binary.LittleEndian.PutUint32(trailer[:4], g.crc)
	binary.LittleEndian.PutUint32(trailer[4:], g.size)
	_, err := g.w.Write(trailer[:])
	return err
}
