package cli

import (
	"errors"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/engine"
)

func (a *app) unpackCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "unpack [flags] IMAGE DIR",
		Short: "Write an image to a directory, as a bundle for any OCI runtime",
		Long: `Write an image to a new directory as a bundle: config.json, and the image's files
in rootfs. tare-runtime, runc and crun run it. IMAGE is pulled if it is not here;
oci:LAYOUT:TAG takes it from an image layout. DIR appears whole or not at all.

A bundle can be entered by its owner alone, as programs in it may be setuid. With
--rootfs-only DIR is the image's / and has its mode, which is mostly open to all:
put it below a directory that is not.`,
		Example: `  tare unpack debian:12 bundle && tare-runtime run --bundle bundle mine
  tare unpack --rootfs-only debian:12 tree
  tare unpack oci:layout:v1 bundle`,
		Args: arguments(2, 2, "IMAGE and DIR"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return nil, cobra.ShellCompDirectiveFilterDirs
			}
			return a.completeImages(1)(cmd, args, typed)
		},
	}
	rootfsOnly := cmd.Flags().Bool("rootfs-only", false, "write just the image's files, into DIR itself")
	platform := platformFlag(cmd.Flags())
	registry := declareRegistryFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		p, err := platform()
		if err != nil {
			return err
		}
		e, err := a.engine()
		if err != nil {
			return err
		}
		defer e.Close()
		unpack := func(o engine.PullOptions) error {
			return e.Unpack(cmd.Context(), args[0], args[1], engine.UnpackOptions{Platform: p, RootfsOnly: *rootfsOnly, Pull: o})
		}
		_, err = e.Resolve(cmd.Context(), args[0], p)
		if strings.HasPrefix(args[0], layoutPrefix) || os.Geteuid() != 0 || !errors.Is(err, engine.ErrNoImage) {
			return unpack(engine.PullOptions{})
		}
		// A layer is written while the next is fetched, and kept packed only.
		_, err = a.showPull(args[0], p, registry, func(o engine.PullOptions) (engine.Image, error) {
			if err := unpack(o); err != nil {
				return engine.Image{}, err
			}
			return e.Resolve(cmd.Context(), args[0], p)
		})
		return err
	}
	return cmd
}
