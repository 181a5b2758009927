package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	cliconfig "github.com/docker/cli/cli/config"
	helpers "github.com/docker/docker-credential-helpers/client"
	"github.com/docker/docker-credential-helpers/credentials"
	"github.com/docker/docker/api/types/registry"
)

// hub is the name under which the docker command keeps the credentials of Docker Hub.
const hub = "https://index.docker.io/v1/"

// CredentialFiles are the files and directories with the credentials of the engine itself, from the environment and the docker
// command too. No tool sees them.
func CredentialFiles(config Config) (list []string) {
	if files := tlsFiles(config); files != nil && files.KeyFile != "" {
		list = append(list, files.KeyFile)
	}
	list = append(list, cmp.Or(config.CredentialsDir, filepath.Join(cliconfig.Dir(), cliconfig.ConfigFileName)))
	for i, file := range list {
		if absolute, err := filepath.Abs(file); err == nil { // else there is no working directory that it could be relative to
			list[i] = absolute
		}
	}
	return list
}

// lookUpCredentials reads those of a registry from the docker command's configuration, by its credential helper where one is
// set. None is no error.
func lookUpCredentials(ctx context.Context, dir, host string) (registry.AuthConfig, error) {
	file, err := cliconfig.Load(dir)
	if err != nil {
		return registry.AuthConfig{}, fmt.Errorf("the credentials of registries in %s: %w", filepath.Join(dir, cliconfig.ConfigFileName), err)
	}
	key := host
	if host == "docker.io" {
		key = hub
	}
	name, own := file.CredentialHelpers[key]
	if !own {
		name = file.CredentialsStore
	}
	if name != "" { // what the environment has comes before the helper, what the file has does not
		file.CredentialHelpers, file.CredentialsStore, file.AuthConfigs = nil, "", nil
	}
	auth, err := file.GetAuthConfig(key)
	if err != nil {
		return registry.AuthConfig{}, fmt.Errorf("the credentials of %s: %w", host, err)
	}
	found := registry.AuthConfig{Username: auth.Username, Password: auth.Password, Auth: auth.Auth, ServerAddress: auth.ServerAddress,
		IdentityToken: auth.IdentityToken, RegistryToken: auth.RegistryToken}
	switch {
	case auth.Username != "" || auth.Password != "" || auth.Auth != "" || auth.IdentityToken != "" || auth.RegistryToken != "":
		return found, nil
	case name == "":
		return registry.AuthConfig{}, nil
	}
	said, err := helpers.Get(func(args ...string) helpers.Program { return newHelper(ctx, name, args) }, key)
	switch {
	case credentials.IsErrCredentialsNotFound(err):
		return registry.AuthConfig{}, nil
	case err != nil && ctx.Err() != nil:
		return registry.AuthConfig{}, fmt.Errorf("the credential helper for %s does not answer", host)
	case err != nil:
		return registry.AuthConfig{}, fmt.Errorf("the credentials of %s: %w", host, err)
	case said.Username == "<token>": // so helpers say that it is none of a user
		return registry.AuthConfig{IdentityToken: said.Secret, ServerAddress: key}, nil
	}
	return registry.AuthConfig{Username: said.Username, Password: said.Secret, ServerAddress: key}, nil
}

// helper is a credential helper that ends, with all that it started, when nobody waits for it any more. Those of the docker command go on
// for as long as they hang.
type helper struct {
	*exec.Cmd
	over func() error // not nil: nobody waits any more
}

func newHelper(ctx context.Context, name string, args []string) helper {
	c := exec.CommandContext(ctx, "docker-credential-"+name, args...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = time.Second // for what has left its group, and holds its output
	return helper{c, ctx.Err}
}

// Output implements helpers.Program. A helper that has answered and ended well may leave something in the background that holds its output.
func (h helper) Output() ([]byte, error) {
	text, err := h.Cmd.Output()
	if errors.Is(err, exec.ErrWaitDelay) && h.over() == nil {
		err = nil
	}
	return text, err
}

// Input implements helpers.Program.
func (h helper) Input(in io.Reader) { h.Stdin = in }
