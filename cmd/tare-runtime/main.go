// Command tare-runtime is an OCI runtime with runc's command line.
package main

import (
	"os"

	"github.com/tare-oci/tare/internal/cli/runtimecli"
)

func main() { os.Exit(runtimecli.Main(os.Args[1:])) }
