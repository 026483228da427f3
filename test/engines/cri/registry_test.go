package cri

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/tare-oci/tare/internal/testenv"
)

// registry pulls an image from tare serve, as a kubelet does before it makes a
// container: without and with TLS and a password.
func registry(k kubelet) {
	layout := filepath.Join(testenv.Images(k), "small")
	open, secure := testenv.Serve(k), testenv.SecureServe(k)
	testenv.ContainerdHost(k, open)
	testenv.ContainerdHost(k, secure)
	for addr, options := range map[string][]string{
		open.Addr:   {"--dest-tls-verify=false"},
		secure.Addr: {"--dest-tls-verify=false", "--dest-creds=" + secure.User + ":" + secure.Password},
	} {
		args := append([]string{"--insecure-policy", "copy", "--quiet"}, options...)
		testenv.Run(k, "skopeo", append(args, "oci:"+layout+":latest", "docker://"+addr+"/team/small:v1")...)
	}
	for addr, login := range map[string]*runtime.AuthConfig{
		open.Addr:   nil,
		secure.Addr: {Username: secure.User, Password: secure.Password},
	} {
		ref := &runtime.ImageSpec{Image: addr + "/team/small:v1"}
		reply, err := k.images.PullImage(k.ctx, &runtime.PullImageRequest{Image: ref, Auth: login})
		id := must(k, reply, err).ImageRef
		status, err := k.images.ImageStatus(k.ctx, &runtime.ImageStatusRequest{Image: ref})
		if got := must(k, status, err).Image; got == nil || got.Id != id || id != configOf(k, layout) {
			k.Errorf("image %s: %v; want %s", id, got, configOf(k, layout))
		}
		if _, err := k.images.RemoveImage(k.ctx, &runtime.RemoveImageRequest{Image: &runtime.ImageSpec{Image: id}}); err != nil {
			k.Error(err)
		}
	}
	for want, ref := range map[string]string{"401": secure.Addr + "/team/small:v1", "not found": open.Addr + "/team/small:none"} {
		_, err := k.images.PullImage(k.ctx, &runtime.PullImageRequest{Image: &runtime.ImageSpec{Image: ref}})
		if err == nil || !strings.Contains(err.Error(), want) {
			k.Errorf("%s: %v; want %q", ref, err, want)
		}
	}
}

// configOf is the digest of the configuration of a layout's only image.
func configOf(k kubelet, layout string) string {
	k.Helper()
	out, err := exec.Command(testenv.Tool(k, "skopeo"), "inspect", "--raw", "oci:"+layout+":latest").Output()
	var manifest struct{ Config struct{ Digest string } }
	if err == nil {
		err = json.Unmarshal(out, &manifest)
	}
	if err != nil {
		k.Fatal(err)
	}
	return manifest.Config.Digest
}
