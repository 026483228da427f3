// Package bundle makes a runtime configuration of an image's configuration, as
// image-spec 1.1.1, conversion.md says, with the defaults that docker and podman
// have where that leaves the choice, and with what the user wants otherwise.
package bundle
