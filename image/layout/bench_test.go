package layout_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layout"
)

func benchmarkStore(b *testing.B, opts layout.Options) (*layout.Store, *layout.Session) {
	opts.Create = true
	s, err := layout.Open(b.TempDir(), opts)
	if err != nil {
		b.Fatal(err)
	}
	p, err := s.Begin(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { p.Close(); s.Close() })
	return s, p
}

func BenchmarkIngest(b *testing.B) {
	for _, noSync := range []bool{false, true} {
		for _, size := range []int{2 << 10, 64 << 20} {
			b.Run(fmt.Sprintf("nosync=%v/%dKiB", noSync, size>>10), func(b *testing.B) {
				_, p := benchmarkStore(b, layout.Options{NoSync: noSync})
				data := make([]byte, size)
				b.SetBytes(int64(size))
				for i := 0; b.Loop(); i++ {
					copy(data, fmt.Sprint(i))
					desc := describe("a/b", data)
					in, err := p.Ingest(b.Context(), desc)
					for rest := data; err == nil && len(rest) > 0; {
						var n int
						n, err = in.Write(rest[:min(len(rest), 128<<10)])
						rest = rest[n:]
					}
					if err == nil {
						err = in.Commit()
					}
					if err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkUse is what a run of an image that is there asks of the store.
func BenchmarkUse(b *testing.B) {
	s, p := benchmarkStore(b, layout.Options{NoSync: true})
	for i := range 100 {
		desc, err := putImage(b.Context(), p, fmt.Append(nil, i))
		if err == nil {
			err = p.Tag(b.Context(), fmt.Sprintf("registry.example/name:%d", i), desc)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		s, err := layout.Open(s.Dir(), layout.Options{})
		if err != nil {
			b.Fatal(err)
		}
		desc, err := s.Resolve(b.Context(), "registry.example/name:50")
		if err == nil {
			_, err = image.Select(b.Context(), s, desc, image.HostPlatform())
		}
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}

func BenchmarkTag(b *testing.B) {
	_, p := benchmarkStore(b, layout.Options{})
	desc, err := putImage(b.Context(), p, []byte("x"))
	if err != nil {
		b.Fatal(err)
	}
	for i := 0; b.Loop(); i++ {
		if err := p.Tag(b.Context(), fmt.Sprint("name", i%100), desc); err != nil {
			b.Fatal(err)
		}
	}
}
