// Package inflate reads DEFLATE streams (RFC 1951) and the gzip files made of them (RFC 1952), as the standard library's
// compress/flate and compress/gzip do, with the same output and the same errors, but more than twice as fast.
//
//	src ─▶ in ─▶ bits ─▶ tables ─▶ out ─▶ Read
//	     64 KiB  64 bit   literals,   window of 32 KiB, and
//	                      distances   what has not been read
//
// Most of a stream is decoded by a loop (decoder.fast) that looks at neither the end of the input nor that of the output:
// it runs while there is enough of both. What is left, and all that may have to wait or fail for lack of input, is done one
// symbol at a time by decoder.careful, which both loops' tables serve.
package inflate
