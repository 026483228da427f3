// Package version says which tare this is.
package version

import (
	"runtime"
	"runtime/debug"
)

// Version is that of the module, and RuntimeSpec, ImageSpec and
// DistributionSpec are those of the specifications it implements.
const (
	Version          = "0.1.0-dev"
	RuntimeSpec      = "1.3.0"
	ImageSpec        = "1.1.1"
	DistributionSpec = "1.1.1"
)

// Commit is the revision the program was built from, as far as Go knows it.
func Commit() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "unknown"
}

// Go is the toolchain's version.
func Go() string { return runtime.Version() }
