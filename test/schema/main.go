// Command schema checks documents against the JSON schemas that the Image Spec
// comes with: schema FILE..., each an index, a manifest or an image's
// configuration. It is a module of its own because of what the schemas' package
// needs.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"

	"github.com/opencontainers/image-spec/schema"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func main() {
	failed := false
	for _, name := range os.Args[1:] {
		if err := check(name); err != nil {
			fmt.Printf("%s: %v\n", name, err)
			failed = true
		}
	}
	if failed {
		os.Exit(1)
	}
	fmt.Printf("%d documents are valid\n", len(os.Args)-1)
}

func check(name string) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	var probe struct {
		Manifests, Layers, RootFS json.RawMessage
	}
	if err := json.Unmarshal(data, &probe); err != nil {
		return err
	}
	var mediaType string
	switch {
	case probe.Manifests != nil:
		mediaType = v1.MediaTypeImageIndex
	case probe.Layers != nil:
		mediaType = v1.MediaTypeImageManifest
	case probe.RootFS != nil:
		mediaType = v1.MediaTypeImageConfig
	default:
		return fmt.Errorf("neither an index nor a manifest nor a configuration")
	}
	return schema.Validator(mediaType).Validate(bytes.NewReader(data))
}
