package service

import (
	"cmp"
	"fmt"
	"os"
	"strings"

	"github.com/tare-oci/tare/distribution/server/config"
	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/distribution/server/storage/fs"
	"github.com/tare-oci/tare/distribution/server/storage/s3"
)

// openObjects chooses the driver by the location.
func openObjects(c config.Storage, getenv func(string) string) (storage.Objects, error) {
	if !strings.HasPrefix(c.Location, "s3://") {
		return fs.New(c.Location, fs.Options{NoSync: !c.Sync})
	}
	bucket, prefix, err := s3.ParseLocation(c.Location)
	if err != nil {
		return nil, err
	}
	secret := getenv("AWS_SECRET_ACCESS_KEY")
	if c.S3.SecretKeyFile != "" {
		data, err := os.ReadFile(c.S3.SecretKeyFile)
		if err != nil {
			return nil, fmt.Errorf("read secret key: %w", err)
		}
		secret = strings.TrimSpace(string(data))
	}
	return s3.New(s3.Options{
		Bucket: bucket, Prefix: prefix, Endpoint: c.S3.Endpoint,
		Region: cmp.Or(c.S3.Region, getenv("AWS_REGION")),
		Credentials: s3.Credentials{
			AccessKey: cmp.Or(c.S3.AccessKey, getenv("AWS_ACCESS_KEY_ID")), SecretKey: secret,
			SessionToken: getenv("AWS_SESSION_TOKEN"),
		},
	})
}
