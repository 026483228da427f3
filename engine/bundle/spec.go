package bundle

import (
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/safepath"
)

// The networks there are.
const (
	NetworkNone = "none" // nothing but a loopback device
	NetworkHost = "host" // that of the machine
)

// Options are what the user wants otherwise than the image says. The zero
// value changes nothing.
type Options struct {
	// Args take the place of the image's Cmd.
	Args []string
	// Entrypoint takes the place of the image's, which makes its Cmd void too;
	// empty and not nil is none.
	Entrypoint []string
	// Env has NAME=VALUE, or NAME alone to take a variable away.
	Env []string
	// Workdir and User take the place of the image's.
	Workdir, User string
	Hostname      string
	Terminal      bool
	// Mounts come before Volumes, which are SRC:DST[:OPTION,OPTION…].
	Mounts   []specs.Mount
	Volumes  []string
	ReadOnly bool
	// Network is NetworkNone, also if empty, or NetworkHost.
	Network string

	MemoryBytes, PidsLimit int64
	// MemorySwapBytes limits memory and swap together; -1 is unlimited swap, 0 leaves it to the kernel.
	MemorySwapBytes int64
	CPUs            float64

	CapAdd, CapDrop []string
	SecurityOpts    []string

	// UIDMappings and GIDMappings give the container a user namespace.
	UIDMappings, GIDMappings []specs.LinuxIDMapping
	// Rootless leaves out what takes root: control groups, and other users than
	// the namespace's root.
	Rootless bool

	// KeptRootfs says that the root file system outlives the container. Volumes
	// of the image are then in memory: bound from the root file system, a link
	// that one container leaves would lead the next one's mount out of it.
	KeptRootfs bool
	// RootPath is root.path, "rootfs" by default.
	RootPath    string
	CgroupsPath string
}

// version is the oldest runtime-spec with all that is used here. Nothing is
// gained by a newer one, and crun before 1.9 refuses it.
const version = "1.0.2"

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Spec makes the config.json for an image whose files are in root. The user and
// the volumes are looked up there; directories for volumes that are missing are
// made.
func Spec(img v1.Image, root *safepath.Root, o Options) (*specs.Spec, error) {
	if o.RootPath == "" {
		o.RootPath = "rootfs"
	}
	s := &specs.Spec{
		Version:     version,
		Root:        &specs.Root{Path: o.RootPath, Readonly: o.ReadOnly},
		Hostname:    o.Hostname,
		Annotations: annotations(img),
	}
	for _, build := range []func() error{
		func() error { return setProcess(s, img.Config, root, o) },
		func() error { return setLinux(s, o) },
		func() error { return setMounts(s, img.Config, root, o) },
		func() error { return setSecurity(s, o) },
		func() error { setUserNamespace(s, o); return nil },
	} {
		if err := build(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// annotations are conversion.md's "Annotation Fields" and Config.ExposedPorts;
// labels go before all.
func annotations(img v1.Image) map[string]string {
	const prefix = "org.opencontainers.image."
	a := map[string]string{}
	set := func(key, value string) {
		if value != "" {
			a[prefix+key] = value
		}
	}
	set("os", img.OS)
	set("architecture", img.Architecture)
	set("variant", img.Variant)
	set("os.version", img.OSVersion)
	set("os.features", strings.Join(img.OSFeatures, ","))
	set("author", img.Author)
	if img.Created != nil {
		set("created", img.Created.Format("2006-01-02T15:04:05.999999999Z07:00"))
	}
	set("stopSignal", img.Config.StopSignal)
	set("exposedPorts", strings.Join(sortedKeys(img.Config.ExposedPorts), ","))
	for k, v := range img.Config.Labels {
		a[k] = v
	}
	return a
}

func sortedKeys(m map[string]struct{}) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func setProcess(s *specs.Spec, c v1.ImageConfig, root *safepath.Root, o Options) error {
	args := command(c, o)
	if len(args) == 0 || args[0] == "" {
		return errors.New("the image names no command: give one")
	}
	name := c.User
	if o.User != "" {
		name = o.User
	}
	user, err := LookupUser(root, name)
	if err != nil {
		return err
	}
	workdir := c.WorkingDir
	if o.Workdir != "" {
		workdir = o.Workdir
	}
	s.Process = &specs.Process{
		Terminal: o.Terminal,
		User:     user,
		Args:     args,
		Env:      environment(c.Env, o),
		Cwd:      path.Join("/", workdir),
	}
	return nil
}

// command is what to run: conversion.md, "Verbatim Fields", note 2.
func command(c v1.ImageConfig, o Options) []string {
	entrypoint, args := c.Entrypoint, c.Cmd
	if o.Entrypoint != nil {
		entrypoint, args = o.Entrypoint, nil
	}
	if len(o.Args) > 0 {
		args = o.Args
	}
	return slices.Concat(entrypoint, args)
}

// environment is the image's with what the user changes, and what a program
// expects that neither has.
func environment(image []string, o Options) []string {
	env := slices.Clone(image)
	set := func(e string, replace bool) {
		name, _, hasValue := strings.Cut(e, "=")
		i := slices.IndexFunc(env, func(have string) bool { return have == name || strings.HasPrefix(have, name+"=") })
		switch {
		case i >= 0 && !replace:
		case i >= 0 && hasValue:
			env[i] = e
		case i >= 0:
			env = slices.Delete(env, i, i+1)
		case hasValue:
			env = append(env, e)
		}
	}
	set(defaultPath, false)
	if o.Hostname != "" {
		set("HOSTNAME="+o.Hostname, false)
	}
	if o.Terminal {
		set("TERM=xterm", false)
	}
	for _, e := range o.Env {
		set(e, true)
	}
	return env
}

func setLinux(s *specs.Spec, o Options) error {
	s.Linux = &specs.Linux{
		CgroupsPath: o.CgroupsPath,
		Namespaces: []specs.LinuxNamespace{
			{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.MountNamespace},
			{Type: specs.CgroupNamespace},
		},
		MaskedPaths: []string{
			"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
			"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
			"/sys/devices/virtual/powercap", "/sys/firmware",
		},
		ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
	}
	switch o.Network {
	case "", NetworkNone:
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace})
	case NetworkHost:
	default:
		return fmt.Errorf("network %q: it must be %s or %s", o.Network, NetworkNone, NetworkHost)
	}
	return setResources(s, o)
}

func setResources(s *specs.Spec, o Options) error {
	// The runtime adds those that every container has (config-linux.md, "Default
	// Devices").
	r := &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}}
	s.Linux.Resources = r
	if o.MemoryBytes != 0 {
		const minMemoryBytes = 6 << 20 // docker's: with less not even a shell starts
		if o.MemoryBytes < minMemoryBytes {
			return fmt.Errorf("memory limit of %d bytes: the least is 6 MiB", o.MemoryBytes)
		}
		r.Memory = &specs.LinuxMemory{Limit: &o.MemoryBytes}
	}
	switch {
	case o.MemorySwapBytes == 0:
	case o.MemorySwapBytes < -1:
		return fmt.Errorf("limit of %d bytes of memory and swap: -1 is without limit", o.MemorySwapBytes)
	case r.Memory == nil && o.MemorySwapBytes != -1:
		return errors.New("a limit of memory and swap together needs one of memory, too")
	case o.MemorySwapBytes != -1 && o.MemorySwapBytes < o.MemoryBytes:
		return fmt.Errorf("limit of %d bytes of memory and swap together: it is below the %d of memory alone", o.MemorySwapBytes, o.MemoryBytes)
	case r.Memory != nil:
		r.Memory.Swap = &o.MemorySwapBytes
	}
	if o.CPUs != 0 {
		const minCPUs, maxCPUs = 0.01, 1 << 16 // the kernel's least quota is 1 ms
		if math.IsNaN(o.CPUs) || o.CPUs < minCPUs || o.CPUs > maxCPUs {
			return fmt.Errorf("limit of %v CPUs: the least is %v", o.CPUs, minCPUs)
		}
		periodMicroseconds := uint64(100_000)
		quotaMicroseconds := int64(math.Round(o.CPUs * float64(periodMicroseconds)))
		r.CPU = &specs.LinuxCPU{Period: &periodMicroseconds, Quota: &quotaMicroseconds}
	}
	if o.PidsLimit < 0 {
		return fmt.Errorf("limit of %d processes", o.PidsLimit)
	}
	if o.PidsLimit > 0 {
		r.Pids = &specs.LinuxPids{Limit: &o.PidsLimit}
	}
	return nil
}
