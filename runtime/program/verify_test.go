package program

import (
	"strings"
	"testing"
)

// What no Builder should make is found.
func TestVerify(t *testing.T) {
	for _, c := range []struct {
		name, want string
		make       func(b *Builder)
		spoil      func(im *Image)
	}{
		{name: "a straight line", make: func(b *Builder) {
			fd := b.Call("dup", Const(0)).Result()
			b.Call("writev", fd, b.Words(b.String("x"), Const(1)), Const(1))
			b.Call("close", fd)
		}},
		{name: "a way round", make: func(b *Builder) {
			missing, done, fd := b.NewLabel(), b.NewLabel(), b.Var()
			b.Call("dup", Const(0)).OnErrno(missing, 9).Into(fd)
			b.Bind(done)
			b.Call("close", fd)
			b.Call("exit_group", Const(0))
			b.Bind(missing)
			b.Call("dup", Const(1)).Into(fd)
			b.Call("sched_yield").OnZero(done)
		}},
		{name: "never made", want: "close($0): $0 is not made", make: func(b *Builder) { b.Call("close", b.Var()) }},
		{name: "not made on every way", want: "fsync($0): $0 is not made", make: func(b *Builder) {
			fd := b.Call("dup", Const(0)).Tolerate(9).Result()
			b.Call("fsync", fd)
		}},
		{name: "closed", want: "fsync($0): $0 is not made, or closed", make: func(b *Builder) {
			fd := b.Call("dup", Const(0)).Result()
			b.Call("close", fd)
			b.Call("fsync", fd)
		}},
		{name: "inside words", want: "sendmsg(1, 0x", make: func(b *Builder) {
			b.Call("sendmsg", Const(1), b.Words(b.Words(b.Var())), Const(0))
		}},
		{name: "never reached", want: "no way leads there", make: func(b *Builder) {
			b.Call("exit_group", Const(0))
			b.Call("fsync", Const(1))
		}},
		{name: "into the middle of a call", want: "goes on at", make: func(b *Builder) { b.Call("fsync", Const(1)).Tolerate(9) },
			spoil: func(im *Image) { im.ELF[dataOffset+headSize+12] += 8 }},
		{name: "a result over a call's number", want: "stores its result at", make: func(b *Builder) {
			b.Call("close", b.Call("dup", Const(0)).Result())
		}, spoil: func(im *Image) {
			at := len(im.ELF) - 8 // the one list of destinations comes last
			im.ELF[at] -= 24
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := NewBuilder("amd64", 2)
			c.make(b)
			im, err := b.Image()
			if err != nil {
				t.Fatal(err)
			}
			if c.spoil != nil {
				c.spoil(im)
			}
			err = im.Verify()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
