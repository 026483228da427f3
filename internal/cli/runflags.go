package cli

import (
	"bufio"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tare-oci/tare/engine"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// runFlags are the flags that make a container out of an image; run and explain
// share them.
type runFlags struct {
	o          engine.RunOptions
	entrypoint string
	envFiles   []string
	memory     byteSize
	memorySwap swapSize
	remove     bool

	pull     string
	platform func() (*v1.Platform, error)
	registry registryFlags
	set      *pflag.FlagSet
}

// declareRunFlags declares the flags. Those of one letter are for run only:
// explain has another -v.
func declareRunFlags(cmd *cobra.Command, letters bool) *runFlags {
	f := &runFlags{set: cmd.Flags()}
	letter := func(s string) string {
		if letters {
			return s
		}
		return ""
	}
	o := &f.o
	flagGroup(cmd, "Process", func(s *pflag.FlagSet) {
		s.BoolVarP(&o.Interactive, "interactive", letter("i"), false, "let it read standard input")
		s.BoolVarP(&o.Terminal, "tty", letter("t"), false, "give it a terminal")
		s.StringArrayVarP(&o.Env, "env", letter("e"), nil, "set `NAME=VALUE`, or pass NAME on from here")
		s.StringArrayVar(&f.envFiles, "env-file", nil, "set the variables in `FILE`, one a line")
		s.StringVarP(&o.Workdir, "workdir", letter("w"), "", "start in `DIR`")
		s.StringVarP(&o.User, "user", letter("u"), "", "run as `USER[:GROUP]`, names or numbers")
		s.StringVar(&f.entrypoint, "entrypoint", "", "run `COMMAND` in place of the image's entrypoint")
		s.StringVar(&o.Hostname, "hostname", "", "host `name` in the container")
		s.StringVar(&o.ID, "name", "", "`name` of the container")
		s.BoolVar(&f.remove, "rm", false, "remove the container when it has ended")
	})
	flagGroup(cmd, "Files", func(s *pflag.FlagSet) {
		s.StringArrayVarP(&o.Volumes, "volume", letter("v"), nil, "show `DIR:PATH[:ro]` of this machine in the container")
		s.BoolVar(&o.ReadOnly, "read-only", false, "make the root file system read-only")
	})
	flagGroup(cmd, "Limits", func(s *pflag.FlagSet) {
		s.VarP(&f.memory, "memory", letter("m"), "at most this `size` of memory, such as 64m or 2g")
		s.Var(&f.memorySwap, "memory-swap", "at most this `size` of memory and swap together, -1 for any; by default twice --memory")
		s.Float64Var(&o.CPUs, "cpus", 0, "at most this `number` of processors' time, such as 1.5")
		s.Int64Var(&o.PidsLimit, "pids-limit", 0, "at most this `number` of processes and threads")
	})
	flagGroup(cmd, "Isolation", func(s *pflag.FlagSet) {
		s.StringArrayVar(&o.CapAdd, "cap-add", nil, "add a `capability`, such as NET_ADMIN, or ALL")
		s.StringArrayVar(&o.CapDrop, "cap-drop", nil, "drop a `capability`, or ALL")
		s.StringArrayVar(&o.SecurityOpts, "security-opt", nil, "`option`: no-new-privileges, seccomp=unconfined or seccomp=FILE")
		o.Network = "none"
		s.Var(&choice{&o.Network, []string{"none", "host"}}, "network", "`network`: none (loopback only) or host (this machine's)")
		s.StringVar(&o.Runtime, "runtime", "", "another OCI `runtime` by name or path, such as runc or crun")
	})
	flagGroup(cmd, "Image", func(s *pflag.FlagSet) {
		f.pull = "missing"
		s.Var(&choice{&f.pull, []string{"missing", "always", "never"}}, "pull", "`when` to pull: missing, always or never")
		s.BoolVar(&o.Pull.Foreign, "allow-foreign", false, foreignUsage)
		f.platform = platformFlag(s)
		f.registry = declareRegistryFlags(s)
	})
	completeChoice(cmd, "network", "none", "host")
	completeChoice(cmd, "pull", "missing", "always", "never")
	return f
}

func completeChoice(cmd *cobra.Command, flag string, known ...string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(known, cobra.ShellCompDirectiveNoFileComp)) // fails only for unknown flags
}

// options puts together what the flags and arguments say.
func (f *runFlags) options(a *app, args []string) (engine.RunOptions, error) {
	o := f.o
	o.Image, o.Args = args[0], args[1:]
	o.MemoryBytes, o.MemorySwapBytes = int64(f.memory), int64(f.memorySwap.byteSize)
	o.Keep = !f.remove
	if f.set.Changed("entrypoint") {
		o.Entrypoint = []string{}
		if f.entrypoint != "" {
			o.Entrypoint = []string{f.entrypoint}
		}
	}
	var err error
	if o.Pull.Platform, err = f.platform(); err != nil {
		return o, err
	}
	if o.Env, err = f.environment(); err != nil {
		return o, usageError{err}
	}
	if o.Volumes, err = absoluteSources(o.Volumes); err != nil {
		return o, usageError{err}
	}
	if o.SecurityOpts, err = absoluteProfiles(o.SecurityOpts); err != nil {
		return o, usageError{err}
	}
	switch {
	case math.IsNaN(o.CPUs) || o.CPUs < 0:
		return o, usageError{fmt.Errorf("--cpus %v: want a positive number", o.CPUs)}
	case o.PidsLimit < -1:
		return o, usageError{fmt.Errorf("--pids-limit %d: want a positive number", o.PidsLimit)}
	case o.PidsLimit == -1: // docker's way to say none
		o.PidsLimit = 0
	}
	client, err := f.registry.client(a)
	if err != nil {
		return o, err
	}
	o.Pull.Registry = client
	return o, nil
}

// environment is that of the files, then that of the flags.
func (f *runFlags) environment() ([]string, error) {
	var env []string
	for _, name := range f.envFiles {
		file, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		more, err := parseEnvFile(bufio.NewScanner(file))
		file.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		env = append(env, more...)
	}
	for _, e := range f.o.Env {
		if e == "" || e[0] == '=' {
			return nil, fmt.Errorf("--env %q: want NAME=VALUE or NAME", e)
		}
		env = append(env, e)
	}
	for i, e := range env {
		if !strings.Contains(e, "=") { // passed on, or taken away
			if value, ok := os.LookupEnv(e); ok {
				env[i] = e + "=" + value
			}
		}
	}
	return env, nil
}

// parseEnvFile reads docker's format: NAME=VALUE or NAME, nothing quoted, and
// comments that begin a line.
func parseEnvFile(lines *bufio.Scanner) (env []string, err error) {
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimLeft(lines.Text(), " \t")
		if text == "" || text[0] == '#' {
			continue
		}
		name, _, _ := strings.Cut(text, "=")
		if name == "" || strings.ContainsAny(name, " \t") || strings.Contains(text, "\x00") {
			return nil, fmt.Errorf("line %d: %q: want NAME=VALUE", n, text)
		}
		env = append(env, text)
	}
	return env, lines.Err()
}

// absoluteSources lets volumes be named relative to where we are.
func absoluteSources(volumes []string) ([]string, error) {
	var absolute []string
	for _, v := range volumes {
		source, rest, ok := strings.Cut(v, ":")
		if ok && (source == "." || source == ".." || strings.HasPrefix(source, "./") || strings.HasPrefix(source, "../")) {
			full, err := filepath.Abs(source)
			if err != nil {
				return nil, err
			}
			v = full + ":" + rest
		}
		absolute = append(absolute, v)
	}
	return absolute, nil
}

// absoluteProfiles lets seccomp profiles be named relative to where we are.
func absoluteProfiles(options []string) ([]string, error) {
	var absolute []string
	for _, option := range options {
		if file, ok := strings.CutPrefix(option, "seccomp="); ok && file != "unconfined" && file != "" {
			full, err := filepath.Abs(file)
			if err != nil {
				return nil, err
			}
			option = "seccomp=" + full
		}
		absolute = append(absolute, option)
	}
	return absolute, nil
}

// byteSize is a flag's value: a size in bytes, with docker's units.
type byteSize int64

func (b *byteSize) Type() string { return "size" }

func (b *byteSize) String() string {
	if *b == 0 {
		return ""
	}
	return strconv.FormatInt(int64(*b), 10)
}

// Set implements pflag.Value.
func (b *byteSize) Set(s string) error {
	n, err := parseSize(s)
	*b = byteSize(n)
	return err
}

// swapSize is a byteSize that may be -1: unlimited.
type swapSize struct{ byteSize }

// Set implements pflag.Value.
func (s *swapSize) Set(v string) error {
	if v == "-1" {
		s.byteSize = -1
		return nil
	}
	return s.byteSize.Set(v)
}

// parseSize reads a number with one of the units b, k, m, g and t, each 1024
// times the one before; "kb" and "kib" are k.
func parseSize(s string) (int64, error) {
	bad := errors.New("want a size such as 512k, 64m or 1.5g")
	units := map[string]float64{
		"": 1, "b": 1, "k": 1 << 10, "kb": 1 << 10, "kib": 1 << 10, "m": 1 << 20, "mb": 1 << 20, "mib": 1 << 20,
		"g": 1 << 30, "gb": 1 << 30, "gib": 1 << 30, "t": 1 << 40, "tb": 1 << 40, "tib": 1 << 40,
	}
	number := strings.TrimRight(strings.ToLower(s), "bkmgti")
	unit, known := units[strings.ToLower(s)[len(number):]]
	if !known || strings.Trim(number, "0123456789.") != "" { // no signs, exponents and infinities
		return 0, bad
	}
	value, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0, bad
	}
	if value *= unit; value >= math.MaxInt64 {
		return 0, bad
	}
	return int64(value), nil
}
