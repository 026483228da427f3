// It ends before it could use more processors than it starts with: whether its
// own control group limits them need not be looked up.
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
