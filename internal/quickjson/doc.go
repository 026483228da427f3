// Package quickjson reads and writes the JSON that every start of a container meets: config.json (runtime-spec 1.3.0, config.md) and the
// runtime's own state. The first use of encoding/json in a process, and in a runtime there is only one, costs more than starting the
// process that makes it.
//
// It means what encoding/json means, except that keys match in their exact case. Every size is bounded, and errors carry the JSON path.
package quickjson
