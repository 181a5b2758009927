package docker

import (
	"fmt"
	"path/filepath"
	"slices"

	cliconfig "github.com/docker/cli/cli/config"
	"github.com/docker/docker/api/types/registry"
)

// hub is the name under which the docker command keeps the credentials of Docker Hub.
const hub = "https://index.docker.io/v1/"

// secretsOf are the files and directories that no tool sees: those that the operator names, and the credentials of the engine itself, from
// the environment and the docker command too.
func secretsOf(config Config) []string {
	list := slices.Clone(config.Secrets)
	if files := tlsFiles(config); files != nil && files.KeyFile != "" {
		list = append(list, files.KeyFile)
	}
	if config.CredentialsDir != "" {
		return append(list, config.CredentialsDir)
	}
	return append(list, filepath.Join(cliconfig.Dir(), cliconfig.ConfigFileName))
}

// lookUpCredentials reads those of a registry from the docker command's configuration, by its credential helper where one is
// set. None is no error.
func lookUpCredentials(dir, host string) (registry.AuthConfig, error) {
	file, err := cliconfig.Load(dir)
	if err != nil {
		return registry.AuthConfig{}, fmt.Errorf("the credentials of registries in %s: %w", filepath.Join(dir, cliconfig.ConfigFileName), err)
	}
	key := host
	if host == "docker.io" {
		key = hub
	}
	auth, err := file.GetAuthConfig(key)
	if err != nil {
		return registry.AuthConfig{}, fmt.Errorf("the credentials of %s: %w", host, err)
	}
	if auth.Username == "" && auth.Password == "" && auth.Auth == "" && auth.IdentityToken == "" && auth.RegistryToken == "" {
		return registry.AuthConfig{}, nil
	}
	return registry.AuthConfig{Username: auth.Username, Password: auth.Password, Auth: auth.Auth, ServerAddress: auth.ServerAddress,
		IdentityToken: auth.IdentityToken, RegistryToken: auth.RegistryToken}, nil
}
