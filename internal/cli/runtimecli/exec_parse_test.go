package runtimecli

import (
	"math"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// What is taken for a user is what was written, and nothing else is taken.
func FuzzSetUser(f *testing.F) {
	for _, text := range []string{"0", "1000:7", "1000:", ":7", "root", "1 ", "0x1", "-1", "+1", "1_0", "4294967295", "4294967296:1", "007", "1:2:3"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u := specs.User{UID: 5, GID: 6}
		if setUser(&u, text) != nil {
			return
		}
		uid, gid, hasGroup := strings.Cut(text, ":")
		same := func(text string, id uint32) bool {
			return strings.TrimLeft(text, "0") == strings.TrimLeft(strconv.FormatUint(uint64(id), 10), "0") && text != "" && id != math.MaxUint32
		}
		if !same(uid, u.UID) || hasGroup && !same(gid, u.GID) || !hasGroup && u.GID != 6 {
			t.Errorf("%q: user %d, group %d", text, u.UID, u.GID)
		}
	})
}

// Every controller of every argument gets the path that is behind it, once.
func FuzzSubCgroups(f *testing.F) {
	f.Add("sub", "")
	f.Add("cpu,memory:a/b", "pids:c:d")
	f.Add("cpu,:a", ":b")
	f.Add("cpu:a", "cpu:b")
	f.Fuzz(func(t *testing.T, one, two string) {
		args := []string{one}
		if two != "" {
			args = append(args, two)
		}
		subs, err := parseSubCgroups(args)
		if err != nil {
			return
		}
		n := 0
		for _, arg := range args {
			controllers, path, ok := strings.Cut(arg, ":")
			if !ok {
				controllers, path = "", arg
			}
			for _, c := range strings.Split(controllers, ",") {
				if n++; subs[c] != path || ok && c == "" {
					t.Errorf("%q: %v", args, subs)
				}
			}
		}
		if n != len(subs) {
			t.Errorf("%q: %v", args, subs)
		}
	})
}
