// Package program builds and starts the small static ELF files that become a
// container's first process.
//
// A program is a straight line of system calls. Each instruction is one call:
// a number, six arguments, the places its result goes to, the errnos that are
// tolerated and where to go on then, and where to go on a zero result. All
// strings, structures, argument vectors and filter programs that the calls
// point to lie beside them in one arena:
//
//	0x400000  ELF header, program headers, interpreter   R-X
//	0x411000  report | instructions | arena              RW-
//
// The interpreter (asm/interpreter_*.S, about 150 bytes of machine code for an
// architecture) is the same for every program: what a container's start does
// is data. There is no stack use, no heap, no library and no code that depends
// on an image or on a configuration.
//
// A process can begin with the first instructions of a program that is still being
// made, and read all of it over them when it is (Builder.Load).
//
// The package knows system calls and files, not containers; the steps of a
// container's life are lowered to it by package plan. It serves the lifecycle
// of the Runtime Spec (runtime.md, section "Lifecycle", steps 2 to 9).
package program
