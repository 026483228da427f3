package server_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tare-oci/tare/distribution/server"
	"github.com/tare-oci/tare/distribution/server/storage"
	storagefs "github.com/tare-oci/tare/distribution/server/storage/fs"
	"github.com/tare-oci/tare/distribution/server/storage/s3"
	"github.com/tare-oci/tare/internal/testenv"
)

const conformanceVersion = "v0.0.0-20260831232431-97274622c111"

var resultLine = regexp.MustCompile(`(?m)^\s*(Disabled|Skip|Pass|FAIL|Error|Total)\.+:\s+([0-9]+)$`)

// TestConformance runs the suite against the registry as most will run it, and
// with everything it knows switched on. Nothing may fail and nothing be skipped.
func TestConformance(t *testing.T) {
	t.Parallel() // the tests that wait for other programs wait together
	suite := testenv.GoTool(t, "github.com/opencontainers/distribution-spec/conformance@"+conformanceVersion)
	for _, c := range []struct {
		name    string
		objects func(testing.TB) storage.Objects
		opts    server.Options
		env     []string
	}{
		{"stable on files", files, server.Options{}, []string{"OCI_VERSION=stable"}},
		{"dev on files", files, server.Options{}, []string{"OCI_VERSION=dev"}},
		{"sparse on files", files, server.Options{AllowSparse: true}, []string{"OCI_VERSION=dev", "OCI_DATA_SPARSE=true"}},
		{"stable on S3", bucket, server.Options{}, []string{"OCI_VERSION=stable"}},
		{"dev on S3", bucket, server.Options{}, []string{"OCI_VERSION=dev"}},
		{"sparse on S3", bucket, server.Options{AllowSparse: true}, []string{"OCI_VERSION=dev", "OCI_DATA_SPARSE=true"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			addr := serve(t, registryOn(t, c.objects(t), c.opts))
			dir := t.TempDir()
			cmd := exec.Command(suite)
			cmd.Dir = dir
			cmd.Env = append(append(os.Environ(), c.env...), "OCI_REGISTRY="+addr, "OCI_TLS=disabled",
				"OCI_REPO1=conformance/one", "OCI_REPO2=conformance/two", "OCI_RESULTS_DIR="+filepath.Join(dir, "results"))
			out, err := cmd.CombinedOutput()
			counts := map[string]string{}
			for _, m := range resultLine.FindAllSubmatch(out, -1) {
				counts[string(m[1])] = string(m[2])
			}
			t.Logf("conformance %s: %v", c.name, counts)
			if err != nil || counts["FAIL"] != "0" || counts["Error"] != "0" || counts["Skip"] != "0" || counts["Pass"] == "0" || counts["Pass"] == "" {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func files(t testing.TB) storage.Objects {
	t.Helper()
	o, err := storagefs.New(t.TempDir(), storagefs.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func bucket(t testing.TB) storage.Objects {
	t.Helper()
	server := testenv.StartS3(t)
	o, err := s3.New(s3.Options{
		Bucket: server.Bucket, Prefix: "registry", Endpoint: server.Endpoint,
		Credentials: s3.Credentials{AccessKey: server.AccessKey, SecretKey: server.SecretKey},
	})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// TestSkopeo pushes real images with Debian's skopeo, pulls them back and
// compares every blob.
func TestSkopeo(t *testing.T) {
	t.Parallel()
	images := testenv.Images(t)
	addr := serve(t, newRegistry(t, server.Options{}))
	for _, image := range []string{"small", "medium", "manyfiles", "zstd", "multiarch"} {
		t.Run(image, func(t *testing.T) {
			t.Parallel()
			layout := filepath.Join(images, image)
			testenv.PushLayout(t, addr, layout, "latest", "test/"+image+":v1")
			back := filepath.Join(t.TempDir(), "layout")
			testenv.Run(t, "skopeo", "--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests", "--src-tls-verify=false",
				"docker://"+addr+"/test/"+image+":v1", "oci:"+back+":v1")
			blobs := 0
			err := filepath.WalkDir(filepath.Join(back, "blobs", "sha256"), func(path string, entry fs.DirEntry, err error) error {
				if err != nil || entry.IsDir() {
					return err
				}
				blobs++
				if sum(t, path) != entry.Name() {
					t.Errorf("%s has other content", entry.Name())
				}
				_, err = os.Stat(filepath.Join(layout, "blobs", "sha256", entry.Name()))
				return err
			})
			if err != nil || blobs < 3 {
				t.Errorf("%d blobs, %v", blobs, err)
			}
			inspect := testenv.Run(t, "skopeo", "inspect", "--tls-verify=false", "--override-arch=amd64", "docker://"+addr+"/test/"+image+":v1")
			if !strings.Contains(inspect, fmt.Sprintf("%q", "v1")) {
				t.Errorf("skopeo inspect does not list the tag:\n%s", inspect)
			}
			testenv.Run(t, "skopeo", "delete", "--tls-verify=false", "docker://"+addr+"/test/"+image+":v1")
		})
	}
}

func sum(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}
