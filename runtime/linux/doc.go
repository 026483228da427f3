// Package linux is the one table of names and numbers of the Linux kernel's
// interface: capabilities, signals, resource limits, namespaces, mount options
// (runtime-spec 1.3.0 config.md, "Linux mount options"), errnos, and the system
// call numbers of every architecture a seccomp profile may speak about.
//
// It makes no system call, imports nothing that does, and compiles everywhere,
// because plans are compiled on any OS. It is part of every container's start:
// all tables are laid out by the linker, none is built when the program begins.
//
// Constants keep the kernel's own spelling, so that one grep finds a name here,
// in the kernel's sources and in the manual pages.
package linux
