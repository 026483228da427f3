package cli

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/engine"
)

func (a *app) pullCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pull [flags] IMAGE",
		Short: "Fetch an image from a registry",
		Long: `Fetch an image from a registry into the local store, and unpack its layers.
What is here already is not fetched again, and a pull that was cut off goes on
where it ended. Every byte is verified. The image's digest is printed.`,
		Example: `  tare pull debian:12
  tare pull --platform linux/arm64 debian:12
  tare pull --creds me:secret registry.example.com/team/app@sha256:1f2e…
  tare pull --plain-http registry.lan:5000/app`,
		Args: arguments(1, 1, "IMAGE"),
	}
	platform := platformFlag(cmd.Flags())
	registry := declareRegistryFlags(cmd.Flags())
	foreign := cmd.Flags().Bool("allow-foreign", false, foreignUsage)
	quiet := cmd.Flags().BoolP("quiet", "q", false, "no progress, only the digest")
	cmd.ValidArgsFunction = a.completeImages(1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a.quiet = a.quiet || *quiet
		p, err := platform()
		if err != nil {
			return err
		}
		e, err := a.engine()
		if err != nil {
			return err
		}
		defer e.Close()
		img, err := a.pull(cmd.Context(), e, args[0], engine.PullOptions{Platform: p, Foreign: *foreign}, registry)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(a.stdout, img.Target.Digest)
		return err
	}
	return cmd
}

// pull pulls with a progress display.
func (a *app) pull(ctx context.Context, e *engine.Engine, name string, how engine.PullOptions, flags registryFlags) (engine.Image, error) {
	return a.showPull(name, how.Platform, flags, func(o engine.PullOptions) (engine.Image, error) {
		o.Foreign = how.Foreign
		return e.Pull(ctx, name, o)
	})
}

// foreignUsage describes --allow-foreign.
const foreignUsage = "fetch layers that registries may not distribute from the URLs in the manifest"

// showPull shows the progress of whatever pulls an image.
func (a *app) showPull(name string, platform *v1.Platform, flags registryFlags,
	fetch func(engine.PullOptions) (engine.Image, error)) (engine.Image, error) {
	client, err := flags.client(a)
	if err != nil {
		return engine.Image{}, err
	}
	defer client.Close()
	display := a.newProgress()
	display.begin("Pulling " + printable(name))
	start := time.Now()
	img, err := fetch(engine.PullOptions{
		Platform: platform, Registry: client, Progress: newPullProgress(display),
	})
	display.close()
	if err == nil {
		a.info("Pulled %s: %s, %s, in %s", img.FamiliarName(), plural(len(img.Manifest.Layers), "layer"), sizeText(img.SizeBytes),
			durationText(time.Since(start)))
	}
	return img, err
}

// pullProgress shows what the engine tells of a pull.
type pullProgress struct {
	display *progress
	then    transferState // of what has all its bytes and is not done

	mu     sync.Mutex
	layers map[digest.Digest]*layerProgress
}

func newPullProgress(display *progress) *pullProgress {
	return &pullProgress{display: display, then: unpacking, layers: map[digest.Digest]*layerProgress{}}
}

type layerProgress struct {
	doneBytes, sizeBytes int64
	wasHere              bool
}

// Start implements engine.Progress.
func (p *pullProgress) Start(layer v1.Descriptor, haveBytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := &layerProgress{doneBytes: haveBytes, sizeBytes: layer.Size, wasHere: haveBytes == layer.Size}
	p.layers[layer.Digest] = l
	p.show(layer.Digest, l)
}

// Advance implements engine.Progress.
func (p *pullProgress) Advance(layer digest.Digest, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.layers[layer]; l != nil {
		l.doneBytes += bytes
		p.show(layer, l)
	}
}

func (p *pullProgress) show(layer digest.Digest, l *layerProgress) {
	state := fetching
	switch {
	case l.wasHere && p.then == unpacking:
		state = reusing
	case l.wasHere:
		state = present
	case l.doneBytes >= l.sizeBytes:
		state = p.then
	}
	p.display.set(shortDigest(layer), state, l.doneBytes, l.sizeBytes)
}

// Done implements engine.Progress.
func (p *pullProgress) Done(layer digest.Digest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.layers[layer]
	if l == nil {
		return
	}
	state := done
	if l.wasHere {
		state = present
	}
	p.display.set(shortDigest(layer), state, l.sizeBytes, l.sizeBytes)
}
