// Command tare builds, ships and runs OCI containers without a daemon.
package main

import (
	"os"

	"github.com/tare-oci/tare/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:])) }
