package dagger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	sdk "dagger.io/dagger"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// The errors of an engine have no types: what they mean is found in their text.

// Words of errors about an image.
var imageWords = []string{"failed to resolve image", "failed to resolve source", "failed to copy", "pull access denied", "manifest unknown", "failed to authorize", "invalid reference format",
	"failed to parse image", "no match for platform", "failed to pull"}

// Words of errors that mean that the engine cannot be reached, or has forgotten the session.
var awayWords = []string{"connection refused", "connection reset", "broken pipe", "no such host", "driver for scheme", "server closed", "session is closing", "no such session", "session not found",
	"client not found", "transport is closing", "transport: error", "use of closed network", "unexpected eof", "shutting down", "i/o timeout", "connect: no such file", "bad gateway", "service unavailable"}

// Words of errors about rights that the engine does not give.
var forbiddenWords = []string{"security.insecure is not allowed", "insecure root capabilities", "insecurerootcapabilities"}

func holds(err error, words []string) bool {
	text := strings.ToLower(err.Error())
	for _, word := range words {
		if strings.Contains(text, word) {
			return true
		}
	}
	return false
}

var answered = regexp.MustCompile(`"errors":\[\{"message":"((?:[^"\\]|\\.)*)"`)

// short is an error without what only engines understand.
func short(err error) string {
	text := err.Error()
	if m := answered.FindStringSubmatch(text); m != nil { // an answer that the SDK did not read
		if said, err := strconv.Unquote(`"` + m[1] + `"`); err == nil {
			text = said
		}
	}
	for _, prefix := range []string{"input: ", "returned error 502: ", "graphql: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return fmt.Sprintf("%.600s", strings.Join(strings.Fields(text), " "))
}

// nobodyThere reports whether an error leaves no doubt that the session has ended.
func nobodyThere(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) && !errors.Is(err, context.DeadlineExceeded)
}

// away reports whether an error is about the way to the engine, not about what was asked for.
func away(err error) bool {
	var network net.Error
	if nobodyThere(err) || errors.As(err, &network) && !errors.Is(err, context.Canceled) {
		return true
	}
	return holds(err, awayWords)
}

// refused says why a container cannot be made. Nothing was started.
func refused(err error, image string) *contracts.Error {
	var exec *sdk.ExecError
	switch {
	case errors.As(err, &exec):
	case holds(err, imageWords):
		return contracts.Errorf(contracts.ImageUnavailable, "the image %s: %s; look at its name, and whether the engine may and can pull it", image, short(err))
	case away(err):
		return unavailable("the Dagger engine: %s", short(err))
	case holds(err, forbiddenWords):
		return contracts.Errorf(contracts.Unsupported, "this Dagger engine forbids privileged: %s", short(err))
	}
	return contracts.Errorf(contracts.SpawnFailed, "the Dagger engine cannot make the container: %s", short(err))
}
