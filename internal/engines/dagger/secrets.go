package dagger

import (
	"os"
	"path/filepath"

	cliconfig "github.com/docker/cli/cli/config"
)

// CredentialFiles are the files and directories that the dagger program takes credentials from: those of the docker command for
// registries and those of its own login. No tool sees them.
func CredentialFiles() []string {
	list := []string{filepath.Join(cliconfig.Dir(), cliconfig.ConfigFileName)}
	if dir, err := os.UserConfigDir(); err == nil { // without a home there is no login
		list = append(list, filepath.Join(dir, "dagger"))
	}
	return list
}
