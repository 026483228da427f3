package cli

import (
	"cmp"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/image"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// engine opens the place that tare keeps everything in.
func (a *app) engine() (*engine.Engine, error) {
	root, runRoot, err := a.roots()
	if err != nil {
		return nil, err
	}
	return engine.Open(engine.Options{Root: root, RunRoot: runRoot, Warn: a.warn, Names: a.names})
}

// roots are that place, and the one for what ends with the machine.
func (a *app) roots() (root, runRoot string, err error) {
	if root := cmp.Or(a.root, a.getenv("TARE_ROOT")); root != "" {
		return root, filepath.Join(root, "run"), nil
	}
	return engine.DefaultRoots(a.getenv)
}

// names expands short names as registries.conf says.
func (a *app) names(name string) ([]distribution.Reference, error) {
	config, err := loadRegistries(a.getenv)
	if err != nil {
		return nil, err
	}
	return config.Candidates(name)
}

// platformFlag declares --platform. The function it returns parses it; nil is
// this machine's platform.
func platformFlag(flags flagSet) func() (*v1.Platform, error) {
	text := flags.String("platform", "", "the image for `OS/ARCH[/VARIANT]` instead of this machine's")
	return func() (*v1.Platform, error) {
		if *text == "" {
			return nil, nil
		}
		p, err := image.ParsePlatform(*text)
		if err != nil {
			return nil, usageError{err}
		}
		return &p, nil
	}
}

// completePlatforms offers the usual platforms wherever a flag takes one.
func completePlatforms(cmd *cobra.Command) {
	for _, flag := range []string{"platform", "set-platform"} {
		if cmd.Flags().Lookup(flag) != nil {
			completeChoice(cmd, flag, "linux/amd64", "linux/arm64", "linux/arm/v7", "linux/arm/v6", "linux/386", "linux/ppc64le", "linux/riscv64", "linux/s390x")
		}
	}
	for _, sub := range cmd.Commands() {
		completePlatforms(sub)
	}
}

// flagSet is the part of pflag.FlagSet that shared flags are declared with.
type flagSet interface {
	String(name, value, usage string) *string
	Bool(name string, value bool, usage string) *bool
}

// completeImages offers the names of images that are here, up to max of them.
func (a *app) completeImages(max int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if max >= 0 && len(args) >= max {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		e, err := a.engine()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		defer e.Close()
		images, err := e.Images(cmd.Context())
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var names []string
		for _, i := range images {
			for _, name := range []string{i.FamiliarName(), i.Name} {
				if strings.HasPrefix(name, typed) {
					names = append(names, name)
					break
				}
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
