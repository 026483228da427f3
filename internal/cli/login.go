package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/auth"
)

func (a *app) loginCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "login [flags] [REGISTRY]",
		Short: "Sign in to a registry",
		Long: `Sign in to a registry: docker.io, unless another is named. The registry is
asked whether it knows the user, and the credentials are then kept where docker,
podman and skopeo look for them too: in the file that has some for this registry
already, or else in containers/auth.json below $XDG_CONFIG_HOME or ~/.config. If
that file names a credential helper, they are kept by it.`,
		Example: `  tare login registry.example.com
  tare login -u me --password-stdin registry.example.com:5000 <token
  tare login --authfile ci-auth.json -u ci --password-stdin registry.example.com <token`,
		Args: arguments(0, 1, "REGISTRY"),
	}
	user := cmd.Flags().StringP("username", "u", "", "the user's `NAME`")
	password := cmd.Flags().StringP("password", "p", "", "the user's `PASSWORD`, which others may see in the list of processes; better is:")
	stdin := cmd.Flags().Bool("password-stdin", false, "read the password, or a token, from standard input")
	registry := declareRegistryFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		host, err := registryHost(args)
		if err != nil {
			return err
		}
		if *stdin && *password != "" {
			return usageError{errors.New("--password and --password-stdin cannot be had at once")}
		}
		c := auth.Credential{Username: *user, Password: *password}
		if err := a.askCredential(&c, *stdin); err != nil {
			return err
		}
		connect, none := registry, ""
		connect.authFile = &none // it need not be there yet
		options, err := connect.options(a)
		if err != nil {
			return err
		}
		path, err := registry.authPath(cmd, a, host)
		if err != nil {
			return err
		}
		options.Credentials = anyHost{c}
		client, err := a.routed(options)
		if err != nil {
			return err
		}
		defer client.Close()
		if err := client.Ping(cmd.Context(), host); err != nil {
			return err
		}
		if err := auth.Save(cmd.Context(), path, host, c); err != nil {
			return err
		}
		a.info("Signed in to %s as %s; kept in %s", printable(host), printable(c.Username), path)
		return nil
	}
	return cmd
}

func (a *app) logoutCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "logout [flags] [REGISTRY]",
		Short: "Forget the credentials for a registry",
		Long: `Forget the credentials for a registry: for docker.io, unless another is named.
They are removed from every file that tare reads them from, and from the helpers
that those name.`,
		Example: `  tare logout registry.example.com`,
		Args:    arguments(0, 1, "REGISTRY"),
	}
	file := cmd.Flags().String("authfile", "", "remove them from `FILE` only")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		host, err := registryHost(args)
		if err != nil {
			return err
		}
		files := auth.DefaultFiles(a.getenv).Paths
		if *file != "" {
			files = []string{*file}
		}
		removed := false
		for _, path := range files {
			was, err := auth.Erase(cmd.Context(), path, host)
			if err != nil {
				return err
			}
			removed = removed || was
		}
		if !removed {
			return fmt.Errorf("not signed in to %s", host)
		}
		a.info("Signed out of %s", printable(host))
		return nil
	}
	return cmd
}

// registryHost is the registry that is named, in any of the ways that people do.
func registryHost(args []string) (string, error) {
	if len(args) == 0 {
		return "docker.io", nil
	}
	name, _, _ := strings.Cut(withoutScheme(args[0]), "/")
	ref, err := distribution.ParseReference(name + "/x")
	if err != nil || !strings.EqualFold(ref.Host, name) && ref.Host != "docker.io" {
		return "", usageError{fmt.Errorf("%q is no registry: want HOST[:PORT]", args[0])}
	}
	if ref.Host == "docker.io" && !strings.Contains(name, ".") {
		return "", usageError{fmt.Errorf("%q is no registry: want HOST[:PORT]", args[0])}
	}
	return ref.Host, nil
}

func withoutScheme(name string) string {
	for _, prefix := range []string{"docker://", "https://", "http://"} {
		name = strings.TrimPrefix(name, prefix)
	}
	return name
}

// askCredential completes what the flags have left open.
func (a *app) askCredential(c *auth.Credential, fromStdin bool) error {
	terminal := term.IsTerminal(int(a.stdin.Fd()))
	if c.Username == "" {
		if fromStdin || !terminal {
			return usageError{errors.New("the user is missing: want --username NAME")}
		}
		fmt.Fprint(a.stderr, "Username: ")
		line, err := bufio.NewReader(a.stdin).ReadString('\n')
		if c.Username = strings.TrimSpace(line); c.Username == "" {
			return errors.Join(errors.New("no user name was given"), err)
		}
	}
	switch {
	case c.Password != "":
	case fromStdin:
		const maxPasswordBytes = 64 << 10
		data, err := io.ReadAll(io.LimitReader(a.stdin, maxPasswordBytes))
		if err != nil {
			return fmt.Errorf("read password: %w", err)
		}
		c.Password = strings.TrimRight(string(data), "\r\n")
	case terminal:
		fmt.Fprint(a.stderr, "Password: ")
		data, err := term.ReadPassword(int(a.stdin.Fd()))
		fmt.Fprintln(a.stderr)
		if err != nil {
			return fmt.Errorf("read password: %w", err)
		}
		c.Password = string(data)
	default:
		return usageError{errors.New("the password is missing: want --password-stdin")}
	}
	if c.Password == "" {
		return errors.New("the password is empty")
	}
	return nil
}

// authPath is the file to keep the credentials for host in.
func (f registryFlags) authPath(cmd *cobra.Command, a *app, host string) (string, error) {
	if *f.authFile != "" {
		return *f.authFile, nil
	}
	if file := a.getenv("REGISTRY_AUTH_FILE"); file != "" {
		return file, nil
	}
	holder, err := auth.DefaultFiles(a.getenv).Holder(cmd.Context(), host)
	if err != nil || holder != "" {
		return holder, err
	}
	config := a.getenv("XDG_CONFIG_HOME")
	if config == "" {
		home := a.getenv("HOME")
		if home == "" {
			return "", errors.New("no place for credentials: neither XDG_CONFIG_HOME nor HOME is set; name a file with --authfile")
		}
		config = filepath.Join(home, ".config")
	}
	return filepath.Join(config, "containers", "auth.json"), nil
}
