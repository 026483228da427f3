// Package host gathers the facts about this machine that decide how a config.json is compiled: kernel, our own
// identity and capabilities, and the cgroup hierarchies (runtime-spec config-linux.md, "Control groups", leaves
// their layout to the host). Probing happens here and nowhere else; a Facts value is plain data.
package host
