package cli

import (
	"errors"
	"math"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/image/layer"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
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
put it below a directory that is not.

It takes root, for the files' owners; with --rootless it does not: all files are
yours, and who they should belong to is kept in their user.rootlesscontainers
attribute, as umoci does it.`,
		Example: `  tare unpack debian:12 bundle && tare-runtime run --bundle bundle mine
  tare unpack --rootfs-only debian:12 tree
  tare unpack --rootless oci:layout:v1 bundle
  tare unpack --uid-map 0:100000:65536 debian:12 bundle`,
		Args: arguments(2, 2, "IMAGE and DIR"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return nil, cobra.ShellCompDirectiveFilterDirs
			}
			return a.completeImages(1)(cmd, args, typed)
		},
	}
	f := declareUnpackFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o, err := f.options()
		if err != nil {
			return err
		}
		e, err := a.engine()
		if err != nil {
			return err
		}
		defer e.Close()
		unpack := func(pull engine.PullOptions) error {
			pull.Foreign = o.Pull.Foreign
			o.Pull = pull
			return e.Unpack(cmd.Context(), args[0], args[1], o)
		}
		_, err = e.Resolve(cmd.Context(), args[0], o.Platform)
		may := o.Rootless || os.Geteuid() == 0
		if isElsewhere(args[0]) || !may || !errors.Is(err, engine.ErrNoImage) {
			return unpack(engine.PullOptions{})
		}
		// A layer is written while the next is fetched, and kept packed only.
		_, err = a.showPull(args[0], o.Platform, f.registry, func(pull engine.PullOptions) (engine.Image, error) {
			if err := unpack(pull); err != nil {
				return engine.Image{}, err
			}
			return e.Resolve(cmd.Context(), args[0], o.Platform)
		})
		return err
	}
	return cmd
}

// unpackFlags are the flags of unpack.
type unpackFlags struct {
	o              engine.UnpackOptions
	uidMap, gidMap idMap
	maxSize        byteSize
	maxHeader      byteSize
	decrypt        string
	platform       func() (*v1.Platform, error)
	registry       registryFlags
}

func declareUnpackFlags(cmd *cobra.Command) *unpackFlags {
	f := &unpackFlags{}
	o := &f.o
	flagGroup(cmd, "Files", func(s *pflag.FlagSet) {
		s.BoolVar(&o.RootfsOnly, "rootfs-only", false, "write just the image's files, into DIR itself")
		s.BoolVar(&o.Rootless, "rootless", false, "do without root: owners become an attribute, devices empty files")
		s.Var(&f.uidMap, "uid-map", "map user ids: `CONTAINER:HOST:SIZE`, also several times; for groups too if --gid-map is left out")
		s.Var(&f.gidMap, "gid-map", "map group ids: `CONTAINER:HOST:SIZE`")
		s.BoolVar(&o.KeepDirlinks, "keep-dirlinks", false, "where a layer has a directory in place of a symbolic link to one, keep the link")
	})
	flagGroup(cmd, "Limits on each layer", func(s *pflag.FlagSet) {
		s.IntVar(&o.Limits.Entries, "max-entries", 0, "at most this `number` of files; 4194304 if left out")
		s.Var(&f.maxSize, "max-size", "at most this `size` unpacked, such as 20g; 128g if left out")
		s.Int64Var(&o.Limits.Ratio, "max-ratio", 0, "at most this `number` of times the packed size, from 256 MiB on; 500 if left out")
		s.Var(&f.maxHeader, "max-header-size", "at most this `size` of what describes one file; 1m if left out")
	})
	flagGroup(cmd, "Image", func(s *pflag.FlagSet) {
		f.platform = platformFlag(s)
		s.BoolVar(&o.Pull.Foreign, "allow-foreign", false, foreignUsage)
		s.StringVar(&f.decrypt, "decrypt-with", "", "decrypt layers by the shell `COMMAND`: blob on stdin, TARE_DESCRIPTOR and TARE_ANNOTATIONS in its environment")
		f.registry = declareRegistryFlags(s)
	})
	return f
}

// options puts together what the flags say.
func (f *unpackFlags) options() (o engine.UnpackOptions, err error) {
	o = f.o
	if o.Platform, err = f.platform(); err != nil {
		return o, err
	}
	if o.Limits.Entries < 0 || o.Limits.Ratio < 0 {
		return o, usageError{errors.New("--max-entries and --max-ratio: want positive numbers")}
	}
	if f.maxHeader > math.MaxInt32 {
		return o, usageError{errors.New("--max-header-size: want less than 2g")}
	}
	o.Limits.SizeBytes, o.Limits.MetaBytes = int64(f.maxSize), int(f.maxHeader)
	o.UIDMap, o.GIDMap = layer.IDMap(f.uidMap), layer.IDMap(f.gidMap)
	if f.decrypt != "" {
		o.Decrypter = engine.DecryptCommand{Args: []string{"/bin/sh", "-c", f.decrypt}}
	}
	return o, nil
}

// idMap is a flag's value: the ranges that it is given, one each time.
type idMap layer.IDMap

func (m *idMap) Type() string { return "map" }

func (m *idMap) String() string {
	var texts []string
	for _, r := range *m {
		texts = append(texts, r.String())
	}
	return strings.Join(texts, ",")
}

// Set implements pflag.Value.
func (m *idMap) Set(s string) error {
	for part := range strings.SplitSeq(s, ",") {
		r, err := layer.ParseIDRange(part)
		if err != nil {
			return err
		}
		*m = append(*m, r)
	}
	return nil
}
