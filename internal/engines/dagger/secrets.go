package dagger

import (
	"os"
	"path/filepath"
	"slices"

	cliconfig "github.com/docker/cli/cli/config"
)

// secretsOf are the files and directories that no tool sees: those that the operator names, and what the dagger program takes
// credentials from, which are those of the docker command for registries and those of its own login.
func secretsOf(config Config) []string {
	list := append(slices.Clone(config.Secrets), filepath.Join(cliconfig.Dir(), cliconfig.ConfigFileName))
	if dir, err := os.UserConfigDir(); err == nil { // without a home there is no login
		list = append(list, filepath.Join(dir, "dagger"))
	}
	return list
}
