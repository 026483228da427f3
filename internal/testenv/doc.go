// Package testenv gives tests the real things they are run against: images,
// Debian's tools, a registry, a private mount namespace, a virtual machine, and
// a check that nothing of a test stays behind.
//
// It implements no part of a specification and is imported by tests only.
//
// What is missing fails a test where it is meant to run (in CI, and under
// test/run, which installs it all), and skips it with the way to get it
// elsewhere. The variables that test/run sets:
//
//	TARE_TEST_IMAGES   directory of the image layouts made by test/images/make-images.sh
//	TARE_TEST_BIN      directory of freshly built tare and tare-runtime
//	TARE_TEST_STRICT   not empty: missing means failed (as CI does)
package testenv
