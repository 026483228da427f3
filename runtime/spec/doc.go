// Package spec loads and validates config.json (runtime-spec 1.3.0, config.md and config-linux.md), and process.json and resources with the same
// types. Errors carry the JSON path.
//
// The decoder is generated for the types of specs-go, over package quickjson.
package spec

//go:generate go run ./internal/gen -o decode_gen.go
