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

// Bounds on a list: some registries send all in one page whatever was asked
// for, a broken or hostile one sends pages without end.
const (
	listPageSize     = 1000
	maxListPages     = 1000
	maxListEntries   = 1_000_000
	maxListPageBytes = 32 << 20
)

// Tags lists the repository's tags, in the registry's order.
func (c *Client) Tags(ctx context.Context, repo distribution.Repository) ([]string, error) {
	first := c.endpoint(repo, distribution.Endpoint{Route: distribution.RouteTags, Name: repo.Name})
	call := c.newCall(repo, http.MethodGet, pull, distribution.Endpoint{}, http.StatusOK)
	tags, err := c.names(ctx, call, first, "tags", distribution.ValidateTag)
	if err != nil {
		return nil, fmt.Errorf("list tags of %s: %w", repo, err)
	}
	return tags, nil
}

// catalogPath is Docker's list of repositories: no part of the Distribution
// Spec, but most registries that one runs oneself have it.
const catalogPath = "/v2/_catalog"

// Repositories lists the repositories on a host, in the registry's order, as
// far as it shows them to this user. Many registries have no such list: then
// the error is distribution.ErrNotFound, ErrUnauthorized or ErrDenied.
func (c *Client) Repositories(ctx context.Context, host string) ([]string, error) {
	repo := distribution.Repository{Host: host}
	call := c.newCall(repo, http.MethodGet, pull, distribution.Endpoint{}, http.StatusOK)
	call.scopes = []string{"registry:catalog:*"}
	first := c.endpoint(repo, distribution.Endpoint{})
	first.Path = catalogPath
	names, err := c.names(ctx, call, first, "repositories", distribution.ValidateName)
	if err != nil {
		return nil, fmt.Errorf("list repositories of %s: %w", host, err)
	}
	return names, nil
}

// names reads a list of names, page by page; each page is a JSON object with
// the list in the given field.
func (c *Client) names(ctx context.Context, call *call, first *url.URL, field string, valid func(string) error) (all []string, err error) {
	first.RawQuery = url.Values{"n": {strconv.Itoa(listPageSize)}}.Encode()
	err = c.pages(ctx, call, first, func(_ *http.Response, body []byte) (int, error) {
		var doc map[string]json.RawMessage
		var page []string
		err := json.Unmarshal(body, &doc)
		if err == nil && doc[field] != nil {
			err = json.Unmarshal(doc[field], &page)
		}
		if err != nil {
			return 0, fmt.Errorf("answer is not a list of %s: %w", field, err)
		}
		for _, name := range page {
			if err := valid(name); err != nil {
				return 0, err
			}
		}
		all = append(all, page...)
		return len(page), nil
	})
	return all, err
}

// pages fetches a list that may go on: each page is given to use, which says
// how many entries it has. The call's URL is set here.
func (c *Client) pages(ctx context.Context, call *call, page *url.URL, use func(resp *http.Response, body []byte) (int, error)) error {
	entries := 0
	for range maxListPages {
		call.url = func() *url.URL {
			u := *page
			u.Scheme = c.scheme(u.Host)
			return &u
		}
		resp, err := c.do(ctx, call)
		if err != nil {
			return err
		}
		body, err := readBounded(resp, maxListPageBytes)
		if err != nil {
			return err
		}
		n, err := use(resp, body)
		if err != nil {
			return err
		}
		if entries += n; entries > maxListEntries {
			return fmt.Errorf("more than %d entries: %w", maxListEntries, distribution.ErrTooLarge)
		}
		next, err := nextPage(page, resp)
		if err != nil || next == nil {
			return err
		}
		if n == 0 {
			return errors.New("registry sends an empty page and says there are more")
		}
		page = next
	}
	return fmt.Errorf("more than %d pages: %w", maxListPages, distribution.ErrTooLarge)
}

// nextPage is where the list goes on, nil where it ends.
func nextPage(page *url.URL, resp *http.Response) (*url.URL, error) {
	link := distribution.ParseNextLink(resp.Header.Values("Link"))
	if link == "" {
		return nil, nil
	}
	next, err := page.Parse(link)
	if err != nil || next.Hostname() != page.Hostname() {
		return nil, errors.New("registry continues the list on another host")
	}
	next.Scheme, next.Host, next.User = page.Scheme, page.Host, nil
	return next, nil
}
