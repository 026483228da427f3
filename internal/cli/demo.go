package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/remote"
	"github.com/tare-oci/tare/distribution/server"
	"github.com/tare-oci/tare/distribution/server/storage"
	storagefs "github.com/tare-oci/tare/distribution/server/storage/fs"
	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/layout"
)

func (a *app) demoCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See all of it work: build, push, pull, verify, unpack, run",
		Long: `See all of it work, offline and in about a second: demo makes an image of this very
program, pushes it to a registry that it starts on a free port of 127.0.0.1, pulls
it back, checks every byte, unpacks it, shows how its container's plan begins, and
runs it. Everything is in a temporary directory, which is removed at the end.

Without root the stages from unpacking on are left out; that is no failure.`,
		Example: "  sudo tare demo",
		Args:    arguments(0, 0, ""),
	}
	lines := cmd.Flags().Int("lines", 8, "show this `number` of the plan's lines")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.demo(cmd.Context(), *lines) }
	return cmd
}

// A demo is the state that its stages hand on.
type demo struct {
	app    *app
	stages *stages
	dir    string
	lines  int

	source   *layout.Store
	registry string // host and port
	client   *remote.Client
	ref      distribution.Reference
	pushed   v1.Descriptor
	engine   *engine.Engine
}

const demoName = "demo/hello"

func (a *app) demo(ctx context.Context, lines int) (err error) {
	start := time.Now()
	dir, err := os.MkdirTemp("", "tare-demo-")
	if err != nil {
		return err
	}
	d := &demo{app: a, dir: dir, lines: lines, client: remote.New(remote.Options{}), stages: &stages{
		out: func(s string) { fmt.Fprint(a.stdout, s) }, now: time.Now,
		color: wantsColor(a.stdout, a.getenv), utf8: speaksUTF8(a.getenv), width: 52,
	}}
	defer func() {
		d.client.Close()
		err = errors.Join(err, d.close(), os.RemoveAll(dir))
	}()
	fmt.Fprint(a.stdout, "An image's way from this program to a container, all on this machine.\n\n")
	stop, err := d.serve(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if d.source, err = layout.Open(filepath.Join(dir, "build"), layout.Options{Create: true, NoSync: true}); err != nil {
		return err
	}
	if d.engine, err = engine.Open(engine.Options{Root: filepath.Join(dir, "tare"), RunRoot: filepath.Join(dir, "run"), Warn: a.warn}); err != nil {
		return err
	}
	needRoot, err := d.run(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "\nIt took %s, and nothing of it is left on this machine.\n", durationText(time.Since(start)))
	if needRoot {
		fmt.Fprintln(a.stdout, "Containers need root: to see the rest, call it with sudo.")
	}
	return nil
}

func (d *demo) close() error {
	var errs []error
	if d.source != nil {
		errs = append(errs, d.source.Close())
	}
	if d.engine != nil {
		errs = append(errs, d.engine.Close())
	}
	return errors.Join(errs...)
}

// run goes through the stages, and reports whether some were left out for lack
// of privileges.
func (d *demo) run(ctx context.Context) (needRoot bool, err error) {
	for _, s := range []struct {
		name string
		root bool
		do   func(context.Context) (what, details string, err error)
	}{
		{"build", false, d.build}, {"push", false, d.push}, {"pull", false, d.pull}, {"verify", false, d.verify},
		{"unpack", true, d.unpack}, {"explain", true, d.explain}, {"run", true, d.runContainer},
	} {
		if s.root && os.Geteuid() != 0 {
			d.stages.skip(s.name, "left out: it needs root")
			needRoot = true
			continue
		}
		if err := d.stages.do(s.name, func() (string, string, error) { return s.do(ctx) }); err != nil {
			return needRoot, fmt.Errorf("demo: %s: %w", s.name, err)
		}
		if ctx.Err() != nil {
			return needRoot, context.Cause(ctx)
		}
	}
	return needRoot, nil
}

// serve starts the registry; stop ends it.
func (d *demo) serve(ctx context.Context) (stop func() error, err error) {
	objects, err := storagefs.New(filepath.Join(d.dir, "registry"), storagefs.Options{NoSync: true})
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start registry: %w", err)
	}
	d.registry = listener.Addr().String()
	d.ref = distribution.Reference{Repository: distribution.Repository{Host: d.registry, Name: demoName}, Tag: distribution.DefaultTag}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() {
		ended <- server.Serve(ctx, listener, server.New(storage.New(objects, storage.Options{}), server.Options{}), server.ServeOptions{})
	}()
	return func() error {
		cancel()
		return <-ended
	}, nil
}

func (d *demo) build(ctx context.Context) (what, details string, err error) {
	size, err := buildDemoImage(ctx, d.source, demoName)
	return fmt.Sprintf("an image of this program: 1 layer, %s", sizeText(size)), "", err
}

func (d *demo) push(ctx context.Context) (what, details string, err error) {
	desc, err := d.source.Resolve(ctx, demoName)
	if err != nil {
		return "", "", err
	}
	img, err := image.Load(ctx, d.source, desc)
	if err != nil {
		return "", "", err
	}
	for _, blob := range append(img.Manifest.Layers, img.Manifest.Config) {
		open := func() (io.ReadCloser, error) { return d.source.Open(ctx, blob) }
		if err := d.client.PushBlob(ctx, d.ref.Repository, blob, open); err != nil {
			return "", "", err
		}
	}
	manifest, err := d.source.Fetch(ctx, desc)
	if err != nil {
		return "", "", err
	}
	d.pushed, err = d.client.PushManifest(ctx, d.ref, desc.MediaType, manifest)
	return "to a registry on http://" + d.registry, "", err
}

func (d *demo) pull(ctx context.Context) (what, details string, err error) {
	img, err := d.engine.Pull(ctx, d.ref.String(), engine.PullOptions{Registry: d.client, BlobsOnly: os.Geteuid() != 0})
	if err != nil {
		return "", "", err
	}
	if img.Target.Digest != d.pushed.Digest {
		return "", "", fmt.Errorf("pushed %s and pulled %s: %w", d.pushed.Digest, img.Target.Digest, image.ErrMismatch)
	}
	return fmt.Sprintf("it back over HTTP: %s, sha256:%s…", sizeText(img.SizeBytes), shortDigest(img.Target.Digest)), "", nil
}

func (d *demo) verify(ctx context.Context) (what, details string, err error) {
	store, err := layout.Open(d.engine.ImagesDir(), layout.Options{})
	if err != nil {
		return "", "", err
	}
	defer store.Close()
	report, err := store.Fsck(ctx, layout.FsckOptions{})
	if err != nil {
		return "", "", err
	}
	if len(report.Problems) > 0 {
		return "", "", fmt.Errorf("the store is damaged: %v", report.Problems[0])
	}
	return fmt.Sprintf("each of %s, %s, against its digest", plural(report.Blobs, "blob"), sizeText(report.BlobBytes)), "", nil
}

func (d *demo) unpack(ctx context.Context) (what, details string, err error) {
	bundle := filepath.Join(d.dir, "bundle")
	if err := d.engine.Unpack(ctx, d.ref.String(), bundle, engine.UnpackOptions{Pull: engine.PullOptions{Registry: d.client}}); err != nil {
		return "", "", err
	}
	files := 0
	err = filepath.WalkDir(filepath.Join(bundle, "rootfs"), func(_ string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			files++
		}
		return err
	})
	return fmt.Sprintf("a bundle: config.json, and %s in rootfs", plural(files, "file")), "", err
}

// options are what explain shows and run does.
func (d *demo) options() engine.RunOptions {
	return engine.RunOptions{
		Image: d.ref.String(), Pull: engine.PullOptions{Registry: d.client}, Hostname: "tare-demo", ID: filepath.Base(d.dir),
		ReadOnly: true, CapDrop: []string{"ALL"}, SecurityOpts: []string{"no-new-privileges"}, MemoryBytes: 128 << 20, PidsLimit: 64,
	}
}

func (d *demo) explain(ctx context.Context) (what, details string, err error) {
	plan, err := d.engine.Explain(ctx, d.ref.String(), d.options())
	if err != nil {
		return "", "", err
	}
	var text strings.Builder
	if err := plan.Print(&text, false); err != nil {
		return "", "", err
	}
	program, err := plan.Program()
	if err != nil {
		return "", "", err
	}
	what = fmt.Sprintf("%d steps, a program of %s; among the first:", len(plan.Steps), sizeText(int64(len(program.ELF))))
	return what, firstSteps(strings.ReplaceAll(text.String(), filepath.Join(d.dir, "tare", "containers", filepath.Base(d.dir)), "…"), d.lines), nil
}

// firstSteps are lines of a plan, without those that say which descriptors and
// control groups the process begins with, and short enough for any terminal.
func firstSteps(plan string, most int) string {
	const width = 41
	var b strings.Builder
	shown := 0
	for l := range strings.Lines(plan) {
		text, field, _ := strings.Cut(strings.TrimRight(l, "\n"), "#")
		text = strings.TrimRight(text, " ")
		if strings.HasPrefix(text, " ") || strings.HasPrefix(text, "join ") || shown >= most {
			continue
		}
		shown++
		fmt.Fprintf(&b, "%s\n", strings.TrimRight(fmt.Sprintf("%-*s %s", width, shorten(text, width), strings.TrimSpace(field)), " "))
	}
	return b.String()
}

func (d *demo) runContainer(ctx context.Context) (what, details string, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return "", "", err
	}
	defer r.Close()
	said := make(chan string, 1)
	go func() {
		text, err := io.ReadAll(io.LimitReader(r, 64<<10))
		if err != nil {
			text = []byte(err.Error())
		}
		said <- string(text)
	}()
	o := d.options()
	o.Stdio = [3]*os.File{nil, w, d.app.stderr}
	// A signal ends the container, and then us.
	status, err := d.engine.Run(context.WithoutCancel(ctx), o)
	w.Close()
	text := <-said
	if err != nil {
		return "", "", err
	}
	if ctx.Err() != nil {
		return "", "", context.Cause(ctx)
	}
	if status != 0 {
		return "", "", fmt.Errorf("the container ended with status %d: %s", status, printable(text))
	}
	return "it in a container, where it says:", printableLines(text), nil
}
