package tarstream

import (
	"bytes"
	"errors"
	"strconv"
	"testing"
)

func TestParseACL(t *testing.T) {
	const head = "\x02\x00\x00\x00"
	want := head + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x06\x00\x07\x00\x00\x00" + "\x04\x00\x04\x00\xff\xff\xff\xff" + "\x10\x00\x06\x00\xff\xff\xff\xff" + "\x20\x00\x04\x00\xff\xff\xff\xff"
	for _, text := range []string{
		"user::rw-,group::r--,other::r--,user:lp:rw-:7,mask::rw-",              // bsdtar
		"user::rw-\nuser:7:rw-\ngroup::r--\nmask::rw-\nother::r--\n",           // GNU tar, with --numeric-owner
		"u::rw-,u:7:rw-,g::r--,m::rw-,o::r--",                                  // short
		"user::rw-\nuser:7:rw-\t#effective:rw-\ngroup::r--,mask::rw-,other::r", // with what getfacl adds
	} {
		if got, err := parseACL(text); err != nil || string(got) != want {
			t.Errorf("%q: %v\n got %q\nwant %q", text, err, got, want)
		}
	}
	for _, text := range []string{"", "user::rwx,group::r-x,other::r-x"} {
		if got, err := parseACL(text); got != nil || err != nil {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"user:lp:rw-,user::rw-,group::r--,mask::rw-,other::r--", "user:7", "x:7:rw-", "user:7:rq-",
		"mask:7:rw-", "user:4294967295:rw-", "user:-1:rw-", "a:b:c:d:e"} {
		if got, err := parseACL(text); got != nil || err == nil {
			t.Errorf("%q is taken: %q, %v", text, got, err)
		}
	}
}

func TestOtherXattr(t *testing.T) {
	for key, c := range map[string]struct{ value, name, want string }{
		"LIBARCHIVE.xattr.user.a":     {"Yg", "user.a", "b"},
		"LIBARCHIVE.xattr.user.a%3Db": {"Yg==", "user.a=b", "b"},
		"LIBARCHIVE.xattr.user.e":     {"", "user.e", ""},
	} {
		x, ok := otherXattr(key, []byte(c.value))
		if !ok || x.Name != c.name || !bytes.Equal(x.Value, []byte(c.want)) {
			t.Errorf("%s=%s: %q, %v", key, c.value, x, ok)
		}
	}
	for _, key := range []string{"LIBARCHIVE.xattr.", "LIBARCHIVE.xattr.user.%zz", "LIBARCHIVE.xattr.user.%00", "LIBARCHIVE.creationtime", "SCHILY.acl.ace"} {
		if x, ok := otherXattr(key, []byte("Yg")); ok {
			t.Errorf("%s is taken as %q", key, x)
		}
	}
	// What SCHILY.xattr says goes before, wherever it stands.
	var e extended
	for _, r := range [][2]string{{"LIBARCHIVE.xattr.user.a", "Yg"}, {"SCHILY.xattr.user.a", "s"}, {"LIBARCHIVE.xattr.user.b", "Yg"}} {
		if err := e.record(r[0], []byte(r[1])); err != nil {
			t.Fatal(err)
		}
	}
	if got := e.allXattrs(); len(got) != 2 || string(got[0].Value) != "s" || string(got[1].Value) != "b" {
		t.Errorf("%q", got)
	}
	var err error
	for i := 0; i <= maxXattrs && err == nil; i++ {
		err = e.record("SCHILY.xattr.user."+strconv.Itoa(i), nil)
	}
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("%d attributes: %v", maxXattrs+1, err)
	}
}
