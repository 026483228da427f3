package storage_test

import (
	"fmt"
	"testing"

	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/distribution/server/storage/fs"
	"github.com/tare-oci/tare/distribution/server/storage/s3"
	"github.com/tare-oci/tare/internal/testenv"
)

// onEach runs a test on objects of each driver. What it opens is the same each
// time, as several registries would.
func onEach(t *testing.T, test func(t *testing.T, open func() storage.Objects)) {
	t.Run("files", func(t *testing.T) {
		dir := t.TempDir()
		test(t, func() storage.Objects {
			o, err := fs.New(dir, fs.Options{NoSync: true})
			if err != nil {
				t.Fatal(err)
			}
			return o
		})
	})
	t.Run("S3", func(t *testing.T) {
		s := testenv.StartS3(t)
		test(t, func() storage.Objects {
			o, err := s3.New(s3.Options{
				Bucket: s.Bucket, Prefix: "p", Endpoint: s.Endpoint,
				Credentials: s3.Credentials{AccessKey: s.AccessKey, SecretKey: s.SecretKey},
			})
			if err != nil {
				t.Fatal(err)
			}
			return o
		})
	})
}

// image is a manifest that names blobs.
func image(blobs ...any) string {
	layers := ""
	for i, d := range blobs {
		if i > 0 {
			layers += ","
		}
		layers += fmt.Sprintf(`{"digest":%q}`, d)
	}
	return `{"layers":[` + layers + `]}`
}
