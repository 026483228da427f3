package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/distribution"
)

// Save keeps a credential for a registry host in the credential file path, or
// in the helper that the file names for it. The rest of the file stays as it
// is. It is its owner's alone, and replaced whole.
func Save(ctx context.Context, path, host string, c Credential) error {
	err := change(path, func(d document, all map[string]json.RawMessage) error {
		if helper, key := d.helper(host); helper != "" {
			if err := helper.store(ctx, key, c); err != nil {
				return err
			}
			return setAuth(all, host, &entry{}) // as Docker notes it
		}
		e := entry{IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken}
		if c.Username != "" {
			e.Auth = base64.StdEncoding.EncodeToString([]byte(c.Username + ":" + c.Password))
		}
		return setAuth(all, host, &e)
	})
	if err != nil {
		return fmt.Errorf("keep credentials for %s: %w", host, err)
	}
	return nil
}

// Erase forgets the credential for a registry host in the credential file
// path, and reports whether there was one.
func Erase(ctx context.Context, path, host string) (was bool, err error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	err = change(path, func(d document, all map[string]json.RawMessage) error {
		for key := range d.Auths {
			if hostOf(key) == host {
				was = true
			}
		}
		if helper, key := d.helper(host); helper != "" {
			if _, found, err := helper.get(ctx, key); err != nil {
				return err
			} else if found {
				was = true
				if err := helper.erase(ctx, key); err != nil {
					return err
				}
			}
		}
		return setAuth(all, host, nil)
	})
	if err != nil {
		return false, fmt.Errorf("forget credentials for %s: %w", host, err)
	}
	return was, nil
}

// Holder is the first of the files that has a credential for the host itself;
// "" if none has.
func (f Files) Holder(ctx context.Context, host string) (string, error) {
	for _, path := range f.Paths {
		one := Files{Paths: []string{path}}
		c, err := one.Credential(ctx, distribution.Repository{Host: host})
		if err != nil {
			return "", err
		}
		if !c.IsZero() {
			return path, nil
		}
	}
	return "", nil
}

// helper is the program that the file wants the host's credential kept by, and
// the key for it; "" for the file itself.
func (d document) helper(host string) (Helper, string) {
	for key, helper := range d.CredHelpers {
		if hostOf(key) == host {
			return helper, key
		}
	}
	return d.CredsStore, serverKey(host)
}

// setAuth replaces the host's entry in "auths", however its key is spelt; nil
// removes it. Entries for single repositories of the host stay.
func setAuth(all map[string]json.RawMessage, host string, e *entry) error {
	auths := map[string]json.RawMessage{}
	if raw := all["auths"]; raw != nil {
		if err := json.Unmarshal(raw, &auths); err != nil {
			return errors.New(describe(err))
		}
	}
	for key := range auths {
		if hostOf(key) == host {
			delete(auths, key)
		}
	}
	if e != nil {
		data, err := json.Marshal(*e)
		if err != nil {
			return err
		}
		auths[serverKey(host)] = data
	}
	data, err := json.Marshal(auths)
	all["auths"] = data
	return err
}

// change replaces the file with what edit makes of it, under a lock that all
// changes of it by this package take.
func change(path string, edit func(document, map[string]json.RawMessage) error) error {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target // dotfiles are often links into somebody's repository
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	lock, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return &fs.PathError{Op: "lock", Path: dir, Err: err}
	}
	doc, all, err := readForChange(path)
	if err != nil {
		return err
	}
	if err := edit(doc, all); err != nil {
		return err
	}
	data, err := json.MarshalIndent(all, "", "\t")
	if err != nil {
		return err
	}
	return replaceFile(path, append(data, '\n'))
}

func readForChange(path string) (doc document, all map[string]json.RawMessage, err error) {
	all = map[string]json.RawMessage{}
	data, err := readBytes(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && len(data) == 0:
		return doc, all, nil
	case err != nil:
		return doc, nil, err
	}
	if err := errors.Join(json.Unmarshal(data, &all), json.Unmarshal(data, &doc)); err != nil {
		return doc, nil, fmt.Errorf("read credentials %s: %s", path, describe(err))
	}
	return doc, all, nil
}

// replaceFile never shows a reader, or leaves after a crash, half a file.
func replaceFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".auth-*.json") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after the rename there is nothing of that name
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
