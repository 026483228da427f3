// Package validation runs the validation programs of the Open Container
// Initiative's runtime-tools against tare-runtime: what runtime.md, config.md
// and config-linux.md of the Runtime Spec ask for, as its authors test it.
//
// The programs are built from their release (module suite). It is of 2019, and
// the specification has moved on: what is known to fail, where and why, is in
// known.txt. The test fails when anything else does, and when something listed
// there does not.
package validation
