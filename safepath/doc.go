// Package safepath resolves paths that come from outside (an image, a config.json, a registry) inside a directory and
// never out of it, whatever symbolic links, dots or racing processes are in there. Everything else in this module that
// meets such a path goes through here.
//
// The kernel does the resolving: openat2(2) (Linux 5.6; this module's floor is 5.14) with RESOLVE_IN_ROOT or with
// RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS. What comes back is a file descriptor, so no path is looked up twice.
//
// The package imports nothing heavy, because the runtime, whose start-up time counts, links it.
package safepath
