package cli

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/image/mutate"
	"github.com/tare-oci/tare/image/transfer"
)

// editFlags are those of the verbs that make a new image of one that is there.
type editFlags struct {
	app      *app
	tag      *string
	platform func() (*v1.Platform, error)
	all      *bool
	quiet    *bool
	created  *string
	registry registryFlags
}

func (a *app) declareEditFlags(cmd *cobra.Command) editFlags {
	f := cmd.Flags()
	flags := editFlags{
		app:      a,
		tag:      f.StringP("tag", "t", "", "name the result `NAME`, and leave the image as it is"),
		platform: platformFlag(f),
		all:      f.BoolP("all", "a", false, "change the images for all platforms, and keep the index"),
		quiet:    f.BoolP("quiet", "q", false, "no progress, only the digest"),
		created:  f.String("created", "", "when the change was made: `TIME` in RFC 3339, or seconds since 1970; else SOURCE_DATE_EPOCH, else now"),
	}
	flags.registry = declareRegistryFlags(f)
	cmd.ValidArgsFunction = a.completePlaces
	return flags
}

// with opens what an edit needs, has do make it, and prints the digest of what
// came of it.
func (f editFlags) with(cmd *cobra.Command, title string, do func(*engine.Engine, engine.EditOptions) (transfer.Result, error)) error {
	a := f.app
	a.quiet = a.quiet || *f.quiet
	platform, err := f.platform()
	if err != nil {
		return err
	}
	if *f.all && platform != nil {
		return usageError{fmt.Errorf("--all and --platform cannot be had at once")}
	}
	client, err := f.registry.client(a)
	if err != nil {
		return err
	}
	defer client.Close()
	e, err := a.engine()
	if err != nil {
		return err
	}
	defer e.Close()
	var r transfer.Result
	err = a.showTransfer(title, func(p transfer.Progress) (err error) {
		r, err = do(e, engine.EditOptions{Tag: *f.tag, Platform: platform, All: *f.all, Registry: client, Progress: p})
		return err
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.stdout, r.Root.Digest)
	return err
}

// time is when the change is said to have been made.
func (f editFlags) time() (time.Time, error) {
	text := cmp.Or(*f.created, f.app.getenv("SOURCE_DATE_EPOCH"))
	if text == "" {
		return time.Now().UTC().Truncate(time.Second), nil
	}
	t, err := mutate.ParseTime(text)
	if err != nil {
		name := "--created"
		if *f.created == "" {
			name = "SOURCE_DATE_EPOCH"
		}
		return t, usageError{fmt.Errorf("%s: %w", name, err)}
	}
	return t, nil
}

// alsoCalled has flags found by the names that they have with other tools.
func alsoCalled(flags *pflag.FlagSet, names map[string]string) {
	flags.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(cmp.Or(names[name], name))
	})
}

// annotationsOf reads NAME=VALUE, and NAME- for one to remove.
func annotationsOf(values []string) (map[string]string, error) {
	all := map[string]string{}
	for _, v := range values {
		name, value, ok := strings.Cut(v, "=")
		switch {
		case ok && name != "":
			all[name] = value
		case !ok && len(v) > 1 && strings.HasSuffix(v, "-"):
			all[strings.TrimSuffix(v, "-")] = ""
		default:
			return nil, usageError{fmt.Errorf("--annotation %q: want NAME=VALUE, or NAME- to remove one", v)}
		}
	}
	return all, nil
}
