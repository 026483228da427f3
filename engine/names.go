package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tare-oci/tare/distribution"
)

// AmbiguousError says that a short name stands for images on several registries.
type AmbiguousError struct {
	Name  string
	Found []string
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("%s is ambiguous: there are %s", e.Name, strings.Join(e.Found, " and "))
}

// candidates are the references that a name may stand for, with a tag or a
// digest each.
func (e *Engine) candidates(name string) ([]distribution.Reference, error) {
	expand := e.options.Names
	if expand == nil {
		expand = func(name string) ([]distribution.Reference, error) {
			ref, err := distribution.ParseReference(name)
			return []distribution.Reference{ref}, err
		}
	}
	refs, err := expand(name)
	if err != nil {
		return nil, err
	}
	for i := range refs {
		refs[i] = refs[i].WithDefaultTag()
	}
	return refs, nil
}

// reference is what a name stands for on the registries. Where it may be one of
// several, they are asked: the only one that there is, is it.
func (e *Engine) reference(ctx context.Context, name string, registry Registry) (distribution.Reference, error) {
	refs, err := e.candidates(name)
	if err != nil || len(refs) == 1 {
		return append(refs, distribution.Reference{})[0], err
	}
	var found []distribution.Reference
	var failed []error
	for _, ref := range refs {
		_, _, err := registry.Resolve(ctx, ref)
		switch {
		case err == nil:
			found = append(found, ref)
		case ctx.Err() != nil:
			return distribution.Reference{}, context.Cause(ctx)
		default:
			failed = append(failed, err)
		}
	}
	switch len(found) {
	case 0:
		return distribution.Reference{}, fmt.Errorf("%s: %w", name, errors.Join(failed...))
	case 1:
		return found[0], nil
	}
	ambiguous := &AmbiguousError{Name: name}
	for _, ref := range found {
		ambiguous.Found = append(ambiguous.Found, ref.String())
	}
	return distribution.Reference{}, ambiguous
}
