package runtimecli

import (
	"encoding/json"
	"flag"
	"os"

	"github.com/tare-oci/tare/internal/version"
	"github.com/tare-oci/tare/runtime/features"
)

func featuresCommand() command {
	return command{name: "features", short: "print what this runtime can do, as JSON", min: 0, max: 0, stateless: true,
		flags: func(*flag.FlagSet) func(*call) (int, error) {
			return func(*call) (int, error) {
				f := features.New()
				f.Annotations["io.github.tare-oci.tare.version"] = version.Version
				f.Annotations["io.github.tare-oci.tare.commit"] = version.Commit()
				e := json.NewEncoder(os.Stdout)
				e.SetIndent("", "    ")
				return 0, e.Encode(f)
			}
		}}
}
