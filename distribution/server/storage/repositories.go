package storage

import (
	"context"
	"slices"
	"strings"
)

// Repositories lists up to n repositories that have a manifest and come after
// last, and whether there are more. The order is that of the tree: "a" comes
// before "a/b", and both before "a-b".
func (s *Store) Repositories(ctx context.Context, last string, n int) (names []string, more bool, err error) {
	var after []string
	if last != "" {
		after = strings.Split(last, "/")
	}
	err = s.walk(ctx, nil, after, func(name string) bool {
		more = len(names) == n
		if !more {
			names = append(names, name)
		}
		return !more
	})
	return names, more, err
}

// walk calls visit for each repository below path, without path itself, that
// comes after the path after; it ends early when visit says false.
func (s *Store) walk(ctx context.Context, path, after []string, visit func(name string) bool) error {
	_, err := s.walkBelow(ctx, path, after, visit)
	return err
}

func (s *Store) walkBelow(ctx context.Context, path, after []string, visit func(string) bool) (goOn bool, err error) {
	const page = 1000
	from := ""
	if len(after) > 0 {
		// The way to where the last page ended: below it there may be more.
		child := append(slices.Clone(path), after[0])
		if goOn, err := s.walkBelow(ctx, child, after[1:], visit); !goOn || err != nil {
			return goOn, err
		}
		from = after[0]
	}
	for {
		names, err := s.objects.List(ctx, repoDir(strings.Join(path, "/")), from, page)
		if err != nil || len(names) == 0 {
			return err == nil, err
		}
		for _, name := range names {
			if strings.HasPrefix(name, "_") {
				continue
			}
			if goOn, err := s.visit(ctx, append(slices.Clone(path), name), visit); !goOn || err != nil {
				return goOn, err
			}
		}
		if len(names) < page {
			return true, nil
		}
		from = names[len(names)-1]
	}
}

func (s *Store) visit(ctx context.Context, path []string, visit func(string) bool) (goOn bool, err error) {
	repo := strings.Join(path, "/")
	manifests, err := s.objects.List(ctx, manifestDir(repo), "", 1)
	if err != nil {
		return false, err
	}
	if len(manifests) > 0 && !visit(repo) {
		return false, nil
	}
	return s.walkBelow(ctx, path, nil, visit)
}
