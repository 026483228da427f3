package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// A DecryptCommand decrypts layers by a program: it finds the blob on its
// standard input, the layer's descriptor as JSON in TARE_DESCRIPTOR, and its
// annotations as a JSON object in TARE_ANNOTATIONS. It writes what the blob
// holds to its standard output and exits with 0, or else says what is wrong on
// its standard error. It may leave input unread.
type DecryptCommand struct {
	// Args are the program and its arguments.
	Args []string
}

// Decrypt implements layer.Decrypter.
func (c DecryptCommand) Decrypt(ctx context.Context, desc v1.Descriptor, blob io.Reader) (io.ReadCloser, error) {
	if len(c.Args) == 0 {
		return nil, errors.New("no command")
	}
	env, err := decryptEnv(desc)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &decrypting{name: c.Args[0], cancel: cancel}
	p.cmd = exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	p.cmd.Env, p.cmd.Stdin, p.cmd.Stderr = append(os.Environ(), env...), blob, &p.said
	// What it has started ends with it, or may keep its output open.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.Cancel = func() error { return syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) }
	p.cmd.WaitDelay = 2 * time.Second
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, err
	}
	p.out = out
	return p, nil
}

func decryptEnv(desc v1.Descriptor) ([]string, error) {
	descriptor, err := json.Marshal(desc)
	if err != nil {
		return nil, err
	}
	annotations := []byte("{}")
	if len(desc.Annotations) > 0 {
		if annotations, err = json.Marshal(desc.Annotations); err != nil {
			return nil, err
		}
	}
	const maxVariableBytes = 128<<10 - 64 // the kernel's MAX_ARG_STRLEN, less the name
	if len(descriptor) > maxVariableBytes {
		return nil, fmt.Errorf("descriptor of %d bytes does not fit into an environment variable", len(descriptor))
	}
	return []string{"TARE_DESCRIPTOR=" + string(descriptor), "TARE_ANNOTATIONS=" + string(annotations)}, nil
}

// decrypting is a program at work.
type decrypting struct {
	name   string
	cmd    *exec.Cmd
	out    io.ReadCloser
	said   tail
	cancel func()

	wait sync.Once
	err  error
}

// Read implements io.Reader. The end of what the program writes is the end of
// the content only if the program ends well.
func (p *decrypting) Read(b []byte) (int, error) {
	n, err := p.out.Read(b)
	if err == nil {
		return n, nil
	}
	if werr := p.ended(); werr != nil {
		return n, werr
	}
	return n, err
}

func (p *decrypting) ended() error {
	p.wait.Do(func() {
		err := p.cmd.Wait()
		if err == nil {
			return
		}
		if text := strings.TrimSpace(p.said.String()); text != "" {
			err = fmt.Errorf("%w: %.1000s", err, text)
		}
		p.err = fmt.Errorf("%s: %w", p.name, err)
	})
	return p.err
}

// Close implements io.Closer.
func (p *decrypting) Close() error {
	p.cancel()
	_ = p.ended() // its reader was told, or does not want to know
	return nil
}

// tail keeps the end of what is written.
type tail struct{ bytes.Buffer }

func (t *tail) Write(b []byte) (int, error) {
	const maxBytes = 4 << 10
	if over := t.Len() + len(b) - maxBytes; over > 0 {
		t.Next(min(over, t.Len()))
	}
	t.Buffer.Write(b[max(0, len(b)-maxBytes):])
	return len(b), nil
}
