// It ends before it could use more processors than it starts with. Go looks up
// once, at the start, whether our own control group limits them, whatever is said
// here; with this it keeps no file of it open, and does not look again.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command tare-runtime is an OCI runtime with runc's command line.
package main

import (
	"os"

	"github.com/tare-oci/tare/internal/cli/runtimecli"
)

func main() { os.Exit(runtimecli.Main(os.Args[1:])) }
