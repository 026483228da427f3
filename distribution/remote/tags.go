package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/tare-oci/tare/distribution"
)

// Bounds on a list of tags: some registries send all in one page whatever was
// asked for, a broken or hostile one sends pages without end.
const (
	tagPageSize     = 1000
	maxTagPages     = 1000
	maxTags         = 1_000_000
	maxTagPageBytes = 32 << 20
)

// Tags lists the repository's tags, in the registry's order.
func (c *Client) Tags(ctx context.Context, repo distribution.Repository) ([]string, error) {
	fail := func(err error) ([]string, error) { return nil, fmt.Errorf("list tags of %s: %w", repo, err) }
	page := c.endpoint(repo, distribution.Endpoint{Route: distribution.RouteTags, Name: repo.Name})
	page.RawQuery = url.Values{"n": {strconv.Itoa(tagPageSize)}}.Encode()
	var tags []string
	for range maxTagPages {
		more, next, err := c.tagPage(ctx, repo, page)
		if err != nil {
			return fail(err)
		}
		tags = append(tags, more...)
		if len(tags) > maxTags {
			return fail(fmt.Errorf("more than %d tags: %w", maxTags, distribution.ErrTooLarge))
		}
		if next == nil {
			return tags, nil
		}
		if len(more) == 0 {
			return fail(errors.New("registry sends an empty page and says there are more"))
		}
		page = next
	}
	return fail(fmt.Errorf("more than %d pages: %w", maxTagPages, distribution.ErrTooLarge))
}

func (c *Client) tagPage(ctx context.Context, repo distribution.Repository, page *url.URL) ([]string, *url.URL, error) {
	call := c.newCall(repo, http.MethodGet, pull, distribution.Endpoint{}, http.StatusOK)
	call.url = func() *url.URL {
		u := *page
		u.Scheme = c.scheme(u.Host)
		return &u
	}
	resp, err := c.do(ctx, call)
	if err != nil {
		return nil, nil, err
	}
	body, err := readBounded(resp, maxTagPageBytes)
	if err != nil {
		return nil, nil, err
	}
	var doc struct {
		Tags []string `json:"tags"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, nil, fmt.Errorf("answer is not a list of tags: %w", err)
	}
	for _, tag := range doc.Tags {
		if err := distribution.ValidateTag(tag); err != nil {
			return nil, nil, err
		}
	}
	link := distribution.ParseNextLink(resp.Header.Values("Link"))
	if link == "" {
		return doc.Tags, nil, nil
	}
	next, err := page.Parse(link)
	if err != nil || next.Hostname() != page.Hostname() {
		return nil, nil, errors.New("registry continues the list on another host")
	}
	next.Scheme, next.Host, next.User = page.Scheme, page.Host, nil
	return doc.Tags, next, nil
}
