// Package house holds the rules of this project that a test can hold; the
// others are in CONTRIBUTING.md.
//
// It implements no part of a specification and has nothing but tests. A rule
// that needs exceptions has a list of them beside it, one on a line with its
// reason; a line that excepts nothing any more is an error.
package house
