package engine

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tare-oci/tare/distribution"
)

// imageFilter is something that images can be chosen by.
type imageFilter struct {
	name  string
	any   bool // of several values one has to fit, not all
	parse func(ctx context.Context, e *Engine, value string) (func(Image) bool, error)
}

// imageFilters are those that docker and podman have in common.
var imageFilters = [...]imageFilter{
	{"before", false, func(ctx context.Context, e *Engine, value string) (func(Image) bool, error) {
		than, err := e.createdOf(ctx, value)
		return func(i Image) bool { return i.Image != nil && i.Config.Created != nil && i.Config.Created.Before(than) }, err
	}},
	{"dangling", false, func(_ context.Context, _ *Engine, value string) (func(Image) bool, error) {
		wanted, err := strconv.ParseBool(value)
		if err != nil {
			err = fmt.Errorf("%q: want true or false", value)
		}
		return func(i Image) bool { return (i.Name == "") == wanted }, err
	}},
	{"label", false, func(_ context.Context, _ *Engine, value string) (func(Image) bool, error) {
		name, want, exact := strings.Cut(value, "=")
		return func(i Image) bool {
			if i.Image == nil {
				return false
			}
			have, there := i.Config.Config.Labels[name]
			return there && (!exact || have == want)
		}, nil
	}},
	{"reference", true, func(_ context.Context, _ *Engine, value string) (func(Image) bool, error) {
		_, err := path.Match(value, "")
		return func(i Image) bool { return i.matches(value) }, err
	}},
	{"since", false, func(ctx context.Context, e *Engine, value string) (func(Image) bool, error) {
		than, err := e.createdOf(ctx, value)
		return func(i Image) bool { return i.Image != nil && i.Config.Created != nil && i.Config.Created.After(than) }, err
	}},
}

// ImageFilterNames are the names of the filters that FilterImages knows.
func ImageFilterNames() []string {
	var names []string
	for _, f := range imageFilters {
		names = append(names, f.name)
	}
	return names
}

// FilterImages leaves of a list what all filters let through. A filter is NAME=VALUE:
//
//	reference=PATTERN    part or all of a name; in a pattern, * and ? stand for characters other than a slash
//	label=NAME[=VALUE]   a label of the image's config
//	dangling=true|false  whether the image has no name
//	before=IMAGE, since=IMAGE  made before, or after, another image
func (e *Engine) FilterImages(ctx context.Context, images []Image, filters []string) ([]Image, error) {
	var one, all []func(Image) bool
	for _, filter := range filters {
		name, value, ok := strings.Cut(filter, "=")
		i := slices.IndexFunc(imageFilters[:], func(f imageFilter) bool { return f.name == name })
		if i < 0 || !ok {
			return nil, fmt.Errorf("filter %q: want NAME=VALUE, where NAME is one of %s", filter, strings.Join(ImageFilterNames(), ", "))
		}
		fits, err := imageFilters[i].parse(ctx, e, value)
		if err != nil {
			return nil, fmt.Errorf("filter %s: %w", name, err)
		}
		if imageFilters[i].any {
			one = append(one, fits)
		} else {
			all = append(all, fits)
		}
	}
	return slices.DeleteFunc(slices.Clone(images), func(i Image) bool {
		fits := func(f func(Image) bool) bool { return f(i) }
		return len(one) > 0 && !slices.ContainsFunc(one, fits) ||
			slices.ContainsFunc(all, func(f func(Image) bool) bool { return !f(i) })
	}), nil
}

// createdOf says when an image was made.
func (e *Engine) createdOf(ctx context.Context, name string) (time.Time, error) {
	found, err := e.find(ctx, name)
	if err != nil {
		return time.Time{}, err
	}
	img, err := selectOrOnly(ctx, e.images, found.Desc, nil)
	if err == nil && img.Config.Created == nil {
		err = fmt.Errorf("image %s: its config does not say when it was made", name)
	}
	if err != nil {
		return time.Time{}, err
	}
	return *img.Config.Created, nil
}

// matches says whether a pattern is for a name of the image: as it is, as people write it, or either without the tag.
func (i Image) matches(pattern string) bool {
	for _, name := range []string{i.Name, i.FamiliarName()} {
		names := []string{name}
		if ref, err := distribution.ParseReference(name); err == nil && (ref.Tag != "" || ref.Digest != "") {
			names = append(names, strings.TrimSuffix(strings.TrimSuffix(name, "@"+ref.Digest.String()), ":"+ref.Tag))
		}
		for _, n := range names {
			if fits, _ := path.Match(pattern, n); fits && n != "" { // the pattern has been looked at
				return true
			}
		}
	}
	return false
}
