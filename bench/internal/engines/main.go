package engines

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/bench/internal/measure"
	"github.com/tare-oci/tare/bench/internal/runtimes"
)

// Bench is a benchmark of what is done with images. Its flags are -images, -runs, and those that it needs.
type Bench struct {
	Name   string
	Images []string // layouts, by name, unless the command line names others
	Runs   int      // unless the command line says otherwise

	Private  bool // in a mount namespace of its own, with crun made to work (package runtimes)
	Tare     bool // build tare
	Registry bool // serve each image
	Fresh    bool // on a fresh file system, in a mount namespace of its own
}

// Setup is one image, and what it is to be measured with.
type Setup struct {
	Layout    string // the image's directory
	Dir       string // for whatever is made, on the fresh file system if there is to be one
	Work      string // for what need not be there
	Runs      int
	FSType    string // of Dir, if it is fresh
	Tare      string // the command
	Reference string // of the image, on the registry
}

// Main runs a benchmark and ends the program. Measure is called for each image.
func (b Bench) Main(measure func(ctx context.Context, s Setup) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := b.run(ctx, measure); err != nil {
		fmt.Fprintf(os.Stderr, "bench/%s: %v\n", b.Name, err)
		os.Exit(1)
	}
}

func (b Bench) run(ctx context.Context, measure func(ctx context.Context, s Setup) error) error {
	images := flag.String("images", os.Getenv("TARE_TEST_IMAGES"), "directory of OCI layouts")
	runs := flag.Int("runs", b.Runs, "interleaved runs of each")
	fsType, work := new(string), os.TempDir()
	if b.Fresh {
		fsType = flag.String("fs", "ext4", "file system to work on: ext4, on a fresh image file, or tmpfs")
		flag.StringVar(&work, "work", work, "where to put the ext4 image file")
	}
	flag.Parse()
	if *images == "" {
		return errors.New("-images is missing")
	}
	names := flag.Args()
	if len(names) == 0 {
		names = b.Images
	}
	if b.Private {
		if again, err := runtimes.PrivateMounts(); again || err != nil {
			return err
		}
	}
	if b.Fresh {
		if err := unshareMounts(); err != nil {
			return err
		}
	}
	for _, name := range names {
		s := Setup{Layout: filepath.Join(*images, name), Runs: *runs, FSType: *fsType, Work: work}
		if err := b.image(ctx, s, measure); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// unshareMounts gives this thread, which commands are started from, a mount namespace.
func unshareMounts() error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
}

// image prepares the measuring of one image.
func (b Bench) image(ctx context.Context, s Setup, measured func(ctx context.Context, s Setup) error) (err error) {
	if s.Work, err = os.MkdirTemp(s.Work, "tare-bench-"+b.Name+"-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.Work)) }()
	s.Dir = filepath.Join(s.Work, "made")
	if err := os.Mkdir(s.Dir, 0o755); err != nil {
		return err
	}
	if b.Fresh {
		if err := measure.MountFresh(ctx, s.FSType, filepath.Join(s.Work, "fs.img"), s.Dir); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, unix.Unmount(s.Dir, 0)) }()
	}
	if b.Tare {
		if s.Tare, err = Build(ctx, s.Work); err != nil {
			return err
		}
	}
	if b.Registry {
		var stop context.CancelFunc
		ctx, stop = context.WithCancel(ctx)
		defer stop()
		if s.Reference, err = Serve(ctx, filepath.Join(s.Work, "registry"), s.Layout); err != nil {
			return err
		}
	}
	return measured(ctx, s)
}

// Settle waits for what others wrote, which is not the next one's to wait for. It is a measure.Case's Setup.
func Settle(context.Context, int) error {
	unix.Sync()
	return nil
}
