// Package plan compiles a container's configuration into the system calls that
// make the container.
//
//	config.json + Facts ──Compile──▶ Plan ──Program──▶ program.Image
//
// A Plan is a list of steps in the kernel's own vocabulary. Every step cites
// the field of config.json it comes from and prints itself. Compile is a pure
// function: it makes no system call and opens no file, so a plan can be made,
// read and tested on any machine; what has to be known of the machine or of
// the bundle's files comes in as Facts.
//
// Each operation (Op) is one type with a String and a lower method. lower
// turns it into calls of a program; nothing of an operation runs in Go.
//
// It implements config.md and config-linux.md of the Runtime Spec 1.3.0 for
// the process that becomes the container. Control groups, user id maps and the
// hooks of the runtime's namespace are the parent's: package lifecycle.
package plan
