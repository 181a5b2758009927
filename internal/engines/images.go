package engines

import (
	"regexp"
	"strings"

	"github.com/distribution/reference"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// ImageName is the full name of an image, as docker.io/library/python:3.11-slim. An error has the code unsupported.
func ImageName(image string) (reference.Named, error) {
	named, err := reference.ParseDockerRef(image)
	if err != nil {
		return nil, contracts.Errorf(contracts.Unsupported, "image: %q is not the name of an image (%s); write it as python:3.11-slim or ghcr.io/acme/tool@sha256:…", image, err)
	}
	return named, nil
}

// ImageAllowed reports whether an image is one that the patterns allow; no patterns allow all. A pattern is the name of an image, in
// which * stands for any text without a slash, and ** for any text. One without a tag or digest allows all of
// them. "sha256:…" allows the image that has this digest, whatever its name; digests are those that it is known to have.
func ImageAllowed(patterns []string, image reference.Named, digests []string) bool {
	if len(patterns) == 0 {
		return true
	}
	for _, pattern := range patterns {
		if strings.HasPrefix(pattern, "sha256:") {
			for _, digest := range digests {
				if digest == pattern {
					return true
				}
			}
			continue
		}
		if imageMatches(fullPattern(pattern), image.String()) || imageMatches(fullPattern(pattern), reference.TrimNamed(image).Name()) {
			return true
		}
	}
	return false
}

// fullPattern completes a pattern as names are completed: no host is Docker Hub, and there no folder is library.
func fullPattern(pattern string) string {
	first, _, nested := strings.Cut(pattern, "/")
	switch {
	case nested && (strings.ContainsAny(first, ".:*") || first == "localhost"):
		return pattern
	case nested:
		return "docker.io/" + pattern
	case pattern == "**":
		return pattern
	}
	return "docker.io/library/" + pattern
}

func imageMatches(pattern, name string) bool {
	text := regexp.QuoteMeta(pattern)
	text = strings.ReplaceAll(text, `\*\*`, ".*")
	text = strings.ReplaceAll(text, `\*`, "[^/]*")
	matched, err := regexp.MatchString("^"+text+"$", name)
	return err == nil && matched
}
