package web

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/internal/testenv"
)

// browse opens a page in a browser and returns what has become of it there, and
// what the browser complained about.
func browse(t *testing.T, url string, width int, options ...string) (dom, complaints string) {
	t.Helper()
	browser := ""
	for _, name := range []string{"chromium", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			browser = path
		}
	}
	if path, err := exec.LookPath("chromium-headless-shell"); err == nil || browser == "" {
		if browser = path; err != nil {
			browser = testenv.Tool(t, "chromium-headless-shell")
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, browser, append([]string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-proxy-server",
		"--user-data-dir=" + t.TempDir(), fmt.Sprintf("--window-size=%d,900", width), "--enable-logging=stderr", "--dump-dom",
	}, append(options, url)...)...)
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", browser, err, &log)
	}
	var console []string
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, "CONSOLE") {
			console = append(console, line)
		}
	}
	return out.String(), strings.Join(console, "")
}

// hostile is a text that changes the title if anything of it is taken for more
// than text.
const hostile = `"'></td></script><script>document.title='owned'</script><img src=x onerror="document.title='owned'"><style>*{display:none}</style>{{.}}` + "\u202e\x00"

// TestBrowser: the pages in Chromium. Nothing from an image runs or loads, our own
// style does, and nothing is wider than a phone.
func TestBrowser(t *testing.T) {
	s := open(t, nil)
	long := strings.Repeat("long-", 60)
	labels := map[string]string{hostile: hostile, "org.opencontainers.image.title": long, "link": "javascript:document.title='owned'"}
	image := s.image(t, "team/"+long[:100]+"x", labels, "v1", strings.Repeat("T", 128))
	repo := "team/" + long[:100] + "x"
	image.Platform = &ocispec.Platform{OS: hostile, Architecture: long, OSVersion: hostile}
	image.Annotations = map[string]string{"vnd.docker.reference.type": hostile}
	s.put(t, repo, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{image, {Digest: "javascript:document.title='owned'"}, {Digest: hostile}}, Annotations: labels}, "index")
	image.Platform, image.Annotations = nil, nil
	s.put(t, repo, ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/" + strings.Repeat("x", 200), Subject: &image,
		Config:      s.blob(t, repo, ocispec.MediaTypeEmptyJSON, "{}"),
		Layers:      []ocispec.Descriptor{{MediaType: hostile, Digest: hostile, Size: -1, Annotations: map[string]string{ocispec.AnnotationTitle: hostile}}},
		Annotations: map[string]string{ocispec.AnnotationCreated: hostile},
	}, "artifact")

	for _, tag := range []string{"v1", "index", "artifact"} {
		path := "/ui/" + repo + ":" + tag
		dom, complaints := browse(t, s.URL+path, 1000)
		if complaints != "" {
			t.Errorf("%s: %s", path, complaints)
		}
		if strings.Contains(dom, "<title>owned") || strings.Contains(dom, "<img") || strings.Contains(dom, "<script") || strings.Contains(dom, "javascript:document.title='owned'\"") || strings.Contains(dom, "<style") {
			t.Errorf("%s: what an image says has become part of the page:\n%s", path, dom)
		}
		if !strings.Contains(dom, "</main>") {
			t.Errorf("%s: no page:\n%s", path, dom)
		}
	}
	s.measure(t, "/ui/", "/ui/"+repo, "/ui/"+repo+":v1", "/ui/"+repo+":index", "/ui/"+repo+":artifact")
}

// measure looks at pages as a phone shows them, in the dark: in frames of a page
// that measures them. Ours allow no frames, so their headers are left out.
func (s *shop) measure(t *testing.T, paths ...string) {
	t.Helper()
	const phone = 390
	frames := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			for _, path := range paths {
				fmt.Fprintf(w, `<iframe src="%s" style="width:%dpx;height:800px;border:0"></iframe>`, path, phone)
			}
			io.WriteString(w, `<script>onload=()=>{for(const f of document.querySelectorAll("iframe")){
				const e=f.contentDocument.documentElement
				document.body.append("measured "+e.scrollWidth+" "+f.contentWindow.getComputedStyle(e).backgroundColor+";")}}</script>`)
			return
		}
		resp, err := http.Get(s.URL + r.URL.RequestURI())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
		io.Copy(w, resp.Body)
	}))
	defer frames.Close()
	dom, _ := browse(t, frames.URL+"/", 1000, "--hide-scrollbars", "--blink-settings=preferredColorScheme=0")
	measured := regexp.MustCompile(`measured (\d+) (rgb\([0-9, ]+\));`).FindAllStringSubmatch(dom, -1)
	if len(measured) != len(paths) {
		t.Fatalf("%d pages were measured:\n%s", len(measured), dom)
	}
	for i, m := range measured {
		if width, err := strconv.Atoi(m[1]); err != nil || width > phone {
			t.Errorf("%s is %s pixels wide on a phone", paths[i], m[1])
		}
		if m[2] != "rgb(20, 24, 29)" {
			t.Errorf("%s is %s in the dark", paths[i], m[2])
		}
	}
}
