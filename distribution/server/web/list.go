package web

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/server/storage"
)

// repositoryList is a page of names.
type repositoryList struct {
	Names  []string
	Search string
	First  bool   // there is nothing before it
	Next   string // URL, empty at the end
}

// tagList is a page of a repository's tags.
type tagList struct {
	Tags   []tagRow
	CopyOf string
	First  bool
	Next   string
}

// tagRow is a tag and what it leads to; Digest is empty if that is gone.
type tagRow struct {
	Tag       string
	Digest    digest.Digest
	Kind      string
	Platforms []string
	SizeBytes int64 // of all that it names; 0 if that is not known
}

const (
	pageNames = 100
	pageTags  = 50
	// scanTime is how long names are looked at that are not shown, because the
	// user may not see them or has searched for others.
	scanTime  = 2 * time.Second
	scanNames = 1000 // at a time
	readers   = 8    // manifests read at a time
)

const maxSearchBytes = 255

// repositories lists what the user may pull.
func (h *Handler) repositories(q *request) (*page, error) {
	query := q.URL.Query()
	after, search := query.Get("after"), strings.ToLower(strings.TrimSpace(query.Get("q")))
	if after != "" && distribution.ValidateName(after) != nil || len(search) > maxSearchBytes {
		return nil, notFound
	}
	list := &repositoryList{Search: search, First: after == ""}
	more := true
	for end := time.Now().Add(scanTime); more && len(list.Names) < pageNames && time.Now().Before(end); {
		var names []string
		var err error
		// Where everything is shown, no more is read than that.
		n := scanNames
		if h.opts.Guard == nil && search == "" {
			n = pageNames
		}
		if names, more, err = h.opts.Store.Repositories(q.Context(), after, n); err != nil {
			return nil, err
		}
		for i, name := range names {
			after = name
			if !strings.Contains(name, search) {
				continue
			}
			if err := h.allowed(q, name); err != nil {
				if !errors.Is(err, distribution.ErrUnauthorized) && !errors.Is(err, notFound) {
					return nil, err
				}
				continue
			}
			if list.Names = append(list.Names, name); len(list.Names) == pageNames {
				more = more || i < len(names)-1
				break
			}
		}
	}
	if more {
		next := url.Values{"after": {after}}
		if search != "" {
			next.Set("q", search)
		}
		list.Next = Root + "?" + next.Encode()
	}
	if len(list.Names) == 0 && !more && search == "" && q.user == "" && h.opts.Guard != nil {
		return nil, distribution.ErrUnauthorized // nothing is for everybody: ask who it is
	}
	return &page{Title: "Repositories", List: list}, nil
}

// tags lists a repository's tags.
func (h *Handler) tags(q *request) (*page, error) {
	after := q.URL.Query().Get("after")
	if after != "" && distribution.ValidateTag(after) != nil {
		return nil, notFound
	}
	names, more, err := h.opts.Store.Tags(q.Context(), q.name, after, pageTags)
	if err != nil {
		return nil, err
	}
	list := &tagList{First: after == "", Tags: make([]tagRow, len(names))}
	if list.CopyOf, err = h.opts.Store.Upstream(q.Context(), q.name); err != nil {
		return nil, err
	}
	group, ctx := errgroup.WithContext(q.Context())
	group.SetLimit(readers)
	for i, tag := range names {
		group.Go(func() (err error) {
			list.Tags[i], err = h.row(ctx, q.name, tag)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if more {
		list.Next = Root + q.name + "?" + url.Values{"after": {names[len(names)-1]}}.Encode()
	}
	return &page{Title: q.name, Name: q.name, Tags: list}, nil
}

func (h *Handler) row(ctx context.Context, repo, tag string) (tagRow, error) {
	row := tagRow{Tag: tag}
	m, err := h.opts.Store.Manifest(ctx, repo, tag)
	if errors.Is(err, storage.ErrNotExist) {
		return row, nil
	}
	if err != nil {
		return row, err
	}
	doc := parseDocument(m)
	row.Digest, row.Kind, row.SizeBytes = m.Digest, doc.kind(), doc.sizeBytes()
	for _, desc := range doc.Manifests {
		if p := platformText(desc.Platform); p != "" && !slices.Contains(row.Platforms, p) {
			row.Platforms = append(row.Platforms, p)
		}
		if len(row.Platforms) == maxPlatforms {
			row.Platforms = append(row.Platforms, "…")
			break
		}
	}
	return row, nil
}

// maxPlatforms are shown beside a tag.
const maxPlatforms = 6
