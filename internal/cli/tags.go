package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/remote"
	"github.com/tare-oci/tare/engine/transport"
)

// registryVerb declares a verb that talks to a registry and to nothing else.
func (a *app) registryVerb(cmd *cobra.Command, run func(cmd *cobra.Command, args []string, client remote.Routed) error) *cobra.Command {
	registry := declareRegistryFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		client, err := registry.client(a)
		if err != nil {
			return err
		}
		defer client.Close()
		return run(cmd, args, client)
	}
	return cmd
}

// onRegistry reads the name of something on a registry, with or without docker://.
func onRegistry(name string) (distribution.Reference, error) {
	l, err := transport.Parse(name)
	if err != nil {
		return distribution.Reference{}, usageError{err}
	}
	if l.Kind != transport.Plain && l.Kind != transport.Registry {
		return distribution.Reference{}, usageError{fmt.Errorf("%s is not on a registry", name)}
	}
	return distribution.ParseReference(l.Name)
}

func (a *app) tagsCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "tags [flags] REPOSITORY",
		Short: "List the tags of a repository on a registry",
		Example: `  tare tags debian
  tare tags registry.example.com/team/app`,
		Args: arguments(1, 1, "REPOSITORY"),
	}
	formatFlag(cmd, &format, "text", "json")
	return a.registryVerb(cmd, func(cmd *cobra.Command, args []string, client remote.Routed) error {
		ref, err := onRegistry(args[0])
		if err != nil {
			return err
		}
		if ref.Tag != "" || ref.Digest != "" { // HOST:PORT alone is one with a tag, too
			return usageError{fmt.Errorf("%s: want a repository, without tag or digest", args[0])}
		}
		tags, err := client.Tags(cmd.Context(), ref.Repository)
		if err != nil {
			return err
		}
		if format == "json" {
			return printJSON(a.stdout, struct {
				Repository string   `json:"repository"`
				Tags       []string `json:"tags"`
			}{ref.Repository.String(), list(tags)})
		}
		for _, tag := range tags {
			fmt.Fprintln(a.stdout, tag)
		}
		return nil
	})
}

func (a *app) reposCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "repos [flags] REGISTRY[/PATH]",
		Short: "List the repositories of a registry",
		Long: `List the repositories of a registry, or those of them below PATH, as far as it
shows them to you. Public registries have no such list; those that one runs oneself
mostly do.`,
		Example: `  tare repos registry.example.com:5000
  tare repos registry.example.com:5000/team`,
		Args: arguments(1, 1, "REGISTRY"),
	}
	formatFlag(cmd, &format, "text", "json")
	return a.registryVerb(cmd, func(cmd *cobra.Command, args []string, client remote.Routed) error {
		host, err := registryHost(args)
		if err != nil {
			return err
		}
		names, err := client.Repositories(cmd.Context(), host)
		if err != nil {
			return err
		}
		if _, path, _ := strings.Cut(withoutScheme(args[0]), "/"); path != "" {
			path = strings.TrimSuffix(path, "/")
			names = slices.DeleteFunc(names, func(name string) bool { return name != path && !strings.HasPrefix(name, path+"/") })
		}
		if format == "json" {
			return printJSON(a.stdout, struct {
				Registry     string   `json:"registry"`
				Repositories []string `json:"repositories"`
			}{host, list(names)})
		}
		for _, name := range names {
			fmt.Fprintf(a.stdout, "%s/%s\n", host, name)
		}
		return nil
	})
}

func (a *app) deleteCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delete [flags] REFERENCE...",
		Short: "Delete from a registry",
		Long: `Delete from a registry: with NAME:TAG the tag, with NAME@DIGEST the manifest and
every tag that leads to it. What was deleted is printed, with its digest. Space
is given back when the registry next collects its garbage.

This is about registries only; rmi removes from the local store.`,
		Example: `  tare delete registry.example.com/team/app:v1
  tare delete --manifest registry.example.com/team/app:v1
  tare delete registry.example.com/team/app@sha256:1f2e…`,
		Args: arguments(1, -1, "REFERENCE"),
	}
	manifest := cmd.Flags().Bool("manifest", false, "of NAME:TAG delete the manifest, with all its tags, as registries without deletion of tags want")
	return a.registryVerb(cmd, func(cmd *cobra.Command, args []string, client remote.Routed) error {
		for _, arg := range args {
			ref, err := onRegistry(arg)
			if err != nil {
				return err
			}
			if ref.Tag == "" && ref.Digest == "" { // never the tag that nobody named
				return usageError{fmt.Errorf("%s: want NAME:TAG or NAME@DIGEST", arg)}
			}
			desc, _, err := client.Resolve(cmd.Context(), ref)
			if err != nil {
				return err
			}
			if *manifest {
				ref.Digest = desc.Digest
			}
			if err := client.Delete(cmd.Context(), ref); err != nil {
				return err
			}
			if ref.Digest != "" {
				ref.Tag = ""
			}
			fmt.Fprintf(a.stdout, "%s %s\n", ref, desc.Digest)
		}
		return nil
	})
}
