package docker

import (
	"encoding/json"
	"slices"
	"strings"
	"sync"

	"github.com/docker/docker/api/types/system"
	"github.com/moby/profiles/seccomp"
)

// callFilter is the profile of system calls that a daemon of today would use by itself: older ones let io_uring and AF_VSOCK
// through, which get past what else keeps a container apart.
var callFilter = sync.OnceValue(func() string {
	text, err := json.Marshal(seccomp.DefaultProfile())
	if err != nil {
		return ""
	}
	return "seccomp=" + string(text)
})

// filterFor is what a container of a daemon is to have beside; "" where that has no filter, or one that its operator chose.
func filterFor(info *system.Info) string {
	if slices.ContainsFunc(info.SecurityOptions, func(o string) bool {
		return strings.HasPrefix(o, "name=seccomp") && (strings.Contains(o, "profile=default") || strings.Contains(o, "profile=builtin"))
	}) {
		return callFilter()
	}
	return ""
}
