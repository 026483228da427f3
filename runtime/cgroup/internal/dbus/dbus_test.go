package dbus

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseVariant(t *testing.T) {
	for text, want := range map[string]string{
		"true": "b true", " false ": "b false", "12": "i 12", "-12": "i -12", "1.5": "d 1.5", "uint64 123456789": "t 123456789", "byte 0x0f": "y 15",
		"int16 -3": "n -3", "uint16 3": "q 3", "uint32 3": "u 3", "int64 3": "x 3", "double 3": "d 3", "'inactive-or-failed'": "s inactive-or-failed",
		`"it's"`: "s it's", `'it\'s "'`: `s it's "`, "['a', 'b']": "as [a b]", "@as []": "as []", "@as ['x']": "as [x]", "[uint64 1, 2]": "at [1 2]",
		"[['a'],['b']]": "aas [[a] [b]]", "objectpath '/a'": "o /a", "@at [1]": "at [1]",
	} {
		v, err := ParseVariant(text)
		if got := fmt.Sprint(v.Signature, " ", v.Value); err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "x", "[", "[]", "['a'", "['a' 'b']", "['a', 1]", "'a", "true true", "byte 256", "uint16 -1", "uint64 'a'", "@ 1", "@as", "invalid-value",
		"@z 1", "0x", "''x", strings.Repeat("[", 100)} {
		if v, err := ParseVariant(text); err == nil {
			t.Errorf("%q: got %v", text, v)
		}
	}
}

func TestParseAddresses(t *testing.T) {
	for text, want := range map[string]string{
		"unix:path=/run/user/1000/bus": "[/run/user/1000/bus]", "unix:path=/a%20b,guid=12;unix:abstract=x": "[/a b @x]",
		"tcp:host=x;unix:path=/b": "[/b]",
	} {
		if got, err := parseAddresses(text); err != nil || fmt.Sprint(got) != want {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "unix:", "tcp:host=x", "unix:path=%", "unix:path=%0", "unix:path=%zz", "unix:path=%00"} {
		if got, err := parseAddresses(text); err == nil {
			t.Errorf("%s: got %v", text, got)
		}
	}
}

// example is a call with a value of each type.
func example() (sig string, values []any) {
	return "ybnqiuxtdsogasa(sv)aya{sv}", []any{byte(1), true, int16(-2), uint16(3), int32(-4), uint32(5), int64(-6), uint64(7), 1.5, "text", "/path", "a{sv}",
		[]any{"a", "b"}, []any{[]any{"name", Variant{"u", uint32(8)}}, []any{"list", Variant{"at", []any{uint64(9)}}}}, []any{}, []any{[]any{"k", Variant{"b", false}}}}
}

func TestValues(t *testing.T) {
	sig, values := example()
	b, err := appendCall(nil, 7, Method{"org.x", "/x", "org.x.Y", "Do"}, sig, values)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := messageLength(b); err != nil || n != len(b) {
		t.Errorf("length %d, %v, want %d", n, err, len(b))
	}
	m, err := parseMessage(b)
	if err != nil || m.kind != typeCall || m.member != "Do" || !reflect.DeepEqual(m.args, values) {
		t.Errorf("got %+v, %v", m, err)
	}
	for sig, value := range map[string]any{"u": 5, "s": []any{}, "as": "x", "g": strings.Repeat("s", 256), "v": Variant{"uu", uint32(1)}, "(u)": []any{}, "": uint32(1)} {
		if _, err := appendValues(nil, sig, value); err == nil {
			t.Errorf("%q took %v", sig, value)
		}
	}
}

// FuzzMessage: a message is refused or read, and what is read can be written again.
func FuzzMessage(f *testing.F) {
	sig, values := example()
	b, err := appendCall(nil, 7, Method{"org.x", "/x", "org.x.Y", "Do"}, sig, values)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := messageLength(b); err != nil || n > len(b) || n == 0 {
			return
		}
		_, _ = parseMessage(b)
	})
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"['a', 'b']", "@as []", "uint64 1", `'it\'s'`, "unix:path=/a%20b,guid=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		_, _ = parseAddresses(s)
		if v, err := ParseVariant(s); err == nil {
			if _, err := appendValues(nil, "v", v); err != nil {
				t.Errorf("%q: %v: %v", s, v, err)
			}
		}
	})
}

// serve accepts one connection and answers each call with what answer appends.
func serve(t *testing.T, answer func(m message, serial uint32) [][]byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bus")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		buf := make([]byte, 4096)
		n, _ := c.Read(buf)
		if !bytes.HasPrefix(buf[:n], []byte("\x00AUTH EXTERNAL\r\n")) {
			return
		}
		fmt.Fprint(c, "DATA\r\nOK 1234\r\n")
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			m, err := parseMessage(buf[:n])
			if err != nil {
				return
			}
			for _, b := range answer(m, uint32(buf[8])) {
				for _, half := range [][]byte{b[:len(b)/2], b[len(b)/2:]} { // messages come in pieces
					if _, err := c.Write(half); err != nil {
						return
					}
				}
			}
		}
	}()
	return path
}

// build makes a message other than a call.
func build(t *testing.T, kind byte, code byte, value Variant, sig string, args ...any) []byte {
	t.Helper()
	body, err := appendValues(nil, sig, args...)
	if err != nil {
		t.Fatal(err)
	}
	b, err := appendValues(nil, "yyyyuua(yv)", byte('l'), kind, byte(0), byte(1), uint32(len(body)), uint32(1), []any{[]any{code, value},
		[]any{fieldSignature, Variant{"g", sig}}, []any{fieldErrorName, Variant{"s", "org.x.Error"}}, []any{fieldSender, Variant{"s", ":1.7"}}})
	if err != nil {
		t.Fatal(err)
	}
	return append(pad(b, 8), body...)
}

func TestCall(t *testing.T) {
	path := serve(t, func(m message, serial uint32) [][]byte {
		reply := Variant{"u", serial}
		switch m.member {
		case "Fail":
			return [][]byte{build(t, typeError, fieldReplySerial, reply, "s", "no such thing")}
		case "Silent":
			return nil
		}
		return [][]byte{build(t, typeSignal, fieldMember, Variant{"s", "Happened"}, "u", uint32(3)), build(t, typeSignal, fieldReplySerial, reply, "s", "forged"), build(t, typeReturn, fieldReplySerial, reply, "s", "hello")}
	})
	c, err := Dial("unix:path="+filepath.Join(filepath.Dir(path), "nothing")+";unix:path="+path, 500*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got, err := c.Call(Method{Path: "/", Member: "Greet"}, "s", "you")
	if err != nil || len(got) != 1 || got[0] != "hello" {
		t.Errorf("got %v, %v", got, err)
	}
	if s, err := c.Wait(); err != nil || s.Member != "Happened" || s.Sender != ":1.7" || s.Args[0] != uint32(3) {
		t.Errorf("got %v, %v", s, err)
	}
	var e *Error
	if _, err := c.Call(Method{Path: "/", Member: "Fail"}, ""); !errors.As(err, &e) || e.Name != "org.x.Error" || e.Message != "no such thing" {
		t.Errorf("got %v", err)
	}
	if _, err := c.Call(Method{Path: "/", Member: "Silent"}, ""); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
