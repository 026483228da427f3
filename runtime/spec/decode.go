package spec

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/quickjson"
)

// An Error tells what is wrong with a document, and where.
type Error = quickjson.Error

// maxBytes bounds a document.
const maxBytes = quickjson.MaxBytes

// Decode decodes a config.json.
func Decode(data []byte) (*specs.Spec, error) { return quickjson.Decode("config.json", data, decSpec) }

// DecodeProcess decodes a process.json, the argument of exec --process.
func DecodeProcess(data []byte) (*specs.Process, error) {
	return quickjson.Decode("process.json", data, decProcess)
}

// DecodeResources decodes the resources that update --resources takes.
func DecodeResources(data []byte) (*specs.LinuxResources, error) {
	return quickjson.Decode("resources", data, decLinuxResources)
}
