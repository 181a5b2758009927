package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	imageapi "github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/api/types/versions"
	"github.com/docker/docker/client"
	"github.com/docker/docker/pkg/jsonmessage"
	"github.com/docker/go-units"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
)

// image is what the daemon has under a name.
type image struct {
	id         string
	env        []string
	entrypoint []string
	dir        string
	user       string
	volumes    []string // directories that are to be volumes
}

// progress tells what is being done; as engines.Job has it.
type progress func(stage, message string, percent float64)

// images sees to it that images are there.
type images struct {
	daemon *daemon
	config Config

	mu    sync.Mutex
	pulls map[string]*pull // under way, by image and platform
}

func newImages(d *daemon, config Config) *images {
	return &images{daemon: d, config: config, pulls: map[string]*pull{}}
}

// get returns the image of a contract, after it was pulled if need be. took is how long that was waited for.
func (m *images) get(ctx context.Context, name, platform string, tell progress) (got *image, took time.Duration, err error) {
	named, err := engines.ImageName(name)
	if err != nil {
		return nil, 0, err
	}
	// What no pattern allows by its name may be allowed by its digest, which is known when it is there.
	byDigest := false
	if !engines.ImageAllowed(m.config.Images, named, digestsOf(named, nil)) {
		for _, pattern := range m.config.Images {
			byDigest = byDigest || strings.HasPrefix(pattern, "sha256:")
		}
		if !byDigest {
			return nil, 0, m.denied(named)
		}
	}
	if m.config.Pull == PullAlways && !byDigest {
		if took, err = m.pull(ctx, named, platform, tell); err != nil {
			return nil, took, err
		}
	}
	got, digests, err := m.inspect(ctx, named, platform, m.config.Pull == PullAlways && !byDigest)
	if cerrdefs.IsNotFound(err) && m.config.Pull == PullMissing && !byDigest {
		if took, err = m.pull(ctx, named, platform, tell); err != nil {
			return nil, took, err
		}
		got, digests, err = m.inspect(ctx, named, platform, true)
	}
	switch {
	case cerrdefs.IsNotFound(err) && byDigest:
		return nil, took, m.denied(named) // whose it would be is not known before it is pulled
	case cerrdefs.IsNotFound(err):
		return nil, took, contracts.Errorf(contracts.ImageUnavailable, "the image %s is not on the Docker daemon at %s; pull it there, or have the operator change execution.docker.pull, which is %s", reference.FamiliarString(named), m.daemon.host, m.config.Pull)
	case err != nil && ctx.Err() != nil:
		return nil, took, context.Cause(ctx)
	case err != nil:
		return nil, took, m.daemon.unavailable("look at the image "+reference.FamiliarString(named), err)
	}
	if byDigest && !engines.ImageAllowed(m.config.Images, named, digestsOf(named, digests)) {
		return nil, took, m.denied(named)
	}
	return got, took, nil
}

func (m *images) denied(named reference.Named) *contracts.Error {
	return contracts.Errorf(contracts.PolicyDenied, "the image %s is not among those that this executor may use; its operator can allow it by policy.images", reference.FamiliarString(named))
}

// digestsOf are the digests that an image is known by.
func digestsOf(named reference.Named, more []string) []string {
	if digested, is := named.(reference.Digested); is {
		more = append(more, digested.Digest().String())
	}
	return more
}

// inspect looks at an image. pulled: that for the platform was just pulled. So it is there, also where the daemon shows only another one by that name.
func (m *images) inspect(ctx context.Context, named reference.Named, platform string, pulled bool) (*image, []string, error) {
	ctx, cancel := m.daemon.bounded(ctx)
	defer cancel()
	var options []client.ImageInspectOption
	shown := true
	if wanted := variant(m.daemon.offered(), platform); wanted != nil {
		if shown = versions.GreaterThanOrEqualTo(m.daemon.ClientVersion(), platformAPI); shown {
			options = append(options, client.ImageInspectWithPlatform(wanted))
		}
	}
	found, err := m.daemon.ImageInspect(ctx, reference.FamiliarString(named), options...)
	if err != nil {
		return nil, nil, err
	}
	if platform != "" && (shown || !pulled) && !samePlatform(platform, found.Os, found.Architecture, found.Variant) {
		return nil, nil, fmt.Errorf("the image here is for %s/%s, not for %s: %w", found.Os, found.Architecture, platform, cerrdefs.ErrNotFound)
	}
	got := &image{id: found.ID}
	if c := found.Config; c != nil {
		got.env, got.entrypoint, got.dir, got.user, got.volumes = c.Env, c.Entrypoint, c.WorkingDir, c.User, slices.Collect(maps.Keys(c.Volumes))
	}
	digests := []string{found.ID}
	for _, one := range found.RepoDigests {
		if _, digest, ok := strings.Cut(one, "@"); ok {
			digests = append(digests, digest)
		}
	}
	return got, digests, nil
}

// From this API on, images can be looked at for another platform than the daemon's.
const platformAPI = "1.49"

// variant is a platform as the daemon has to be told of it, nil where it has not: where a name may stand for images of several platforms, as
// in the image store of containerd. Other daemons have one image by a name.
func variant(info *system.Info, platform string) *ocispec.Platform {
	if platform == "" || !ofMany(info) {
		return nil
	}
	wanted, err := platforms.Parse(platform)
	if err != nil {
		return nil // which no image is for
	}
	return &wanted
}

// ofMany reports whether a name may stand for images of several platforms.
func ofMany(info *system.Info) bool {
	return info != nil && slices.Contains(info.DriverStatus, [2]string{"driver-type", "io.containerd.snapshotter.v1"})
}

// samePlatform reports whether an image is for a platform, whatever that is called there: x86_64 is amd64, and arm64 is arm64/v8.
func samePlatform(platform, os, architecture, variant string) bool {
	wanted, err := platforms.Parse(platform)
	if err != nil {
		return false
	}
	found, whole := platforms.Normalize(ocispec.Platform{OS: os, Architecture: architecture, Variant: variant}), platforms.Normalize(wanted)
	return whole.OS == found.OS && whole.Architecture == found.Architecture && (wanted.Variant == "" || whole.Variant == found.Variant)
}

// pull is one pull, however many runs wait for it.
type pull struct {
	done    chan struct{}
	err     error
	stop    context.CancelFunc
	waiting int

	mu      sync.Mutex
	message string
	percent float64
	news    chan struct{} // closed and made anew with each change
}

func (p *pull) say(message string, percent float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.message == message && p.percent == percent {
		return
	}
	p.message, p.percent = message, percent
	close(p.news)
	p.news = make(chan struct{})
}

func (p *pull) now() (message string, percent float64, news <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.message, p.percent, p.news
}

// pull pulls an image, or waits for the pull of it that is under way.
func (m *images) pull(ctx context.Context, named reference.Named, platform string, tell progress) (time.Duration, error) {
	begun := time.Now()
	key := named.String() + " " + platform
	m.mu.Lock()
	p := m.pulls[key]
	if p == nil {
		work, stop := context.WithTimeoutCause(context.Background(), m.config.PullTimeout, errPullSlow)
		p = &pull{done: make(chan struct{}), stop: stop, news: make(chan struct{}), percent: -1, message: "asking the registry"}
		m.pulls[key] = p
		go func() {
			defer stop()
			p.err = m.load(work, named, platform, p.say)
			m.mu.Lock()
			if m.pulls[key] == p {
				delete(m.pulls, key)
			}
			m.mu.Unlock()
			close(p.done)
		}()
	}
	p.waiting++
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if p.waiting--; p.waiting == 0 {
			if p.stop(); m.pulls[key] == p {
				delete(m.pulls, key) // who comes now begins anew
			}
		}
	}()
	for {
		message, percent, news := p.now()
		if tell != nil {
			tell("pull", fmt.Sprintf("%s: %s", reference.FamiliarString(named), message), percent)
		}
		select {
		case <-p.done:
			return time.Since(begun), p.err
		case <-ctx.Done():
			return time.Since(begun), context.Cause(ctx)
		case <-news:
		}
	}
}

var errPullSlow = errors.New("the pull took too long")

// load pulls an image now.
func (m *images) load(ctx context.Context, named reference.Named, platform string, say func(string, float64)) error {
	name := reference.FamiliarString(named)
	failed := func(err error) error {
		if errors.Is(context.Cause(ctx), errSlow) {
			return contracts.Errorf(contracts.EngineUnavailable, "pull the image %s: the Docker daemon at %s has not answered within %s; look at its log, and whether it reaches that registry", name, m.daemon.host, m.daemon.timeout)
		}
		if errors.Is(context.Cause(ctx), errPullSlow) {
			return contracts.Errorf(contracts.ImageUnavailable, "the image %s was not pulled within %s (execution.docker.pull_timeout)", name, m.config.PullTimeout)
		}
		if client.IsErrConnectionFailed(err) {
			return m.daemon.unavailable("pull the image "+name, err)
		}
		return contracts.Errorf(contracts.ImageUnavailable, "the image %s cannot be pulled: %s", name, explained(err))
	}
	auth, err := m.credentials(ctx, named)
	if err != nil {
		return failed(err)
	}
	ctx, hang := context.WithCancelCause(ctx)
	defer hang(nil)
	silent := time.AfterFunc(m.daemon.timeout, func() { hang(errSlow) }) // as any call; what comes then may take its time
	defer silent.Stop()
	stream, err := m.daemon.ImagePull(ctx, named.String(), imageapi.PullOptions{RegistryAuth: auth, Platform: platform})
	if err != nil {
		return failed(err)
	}
	defer stream.Close()
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	defer stop()
	layers := newLayers(say)
	for messages := json.NewDecoder(stream); ; {
		var one jsonmessage.JSONMessage
		err := messages.Decode(&one)
		silent.Stop()
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return failed(err)
		case one.Error != nil:
			return failed(one.Error)
		}
		layers.take(one)
	}
}

// explained is what a registry or the daemon said, with what helps.
func explained(err error) string {
	text := tidy(err)
	lower := strings.ToLower(text)
	switch {
	case strings.Contains(lower, "unauthorized"), strings.Contains(lower, "denied"), strings.Contains(lower, "no basic auth credentials"), strings.Contains(lower, "authentication required"):
		return text + "; log in to that registry as the executor's user (docker login), or set execution.docker.credentials_dir"
	case strings.Contains(lower, "not found"), strings.Contains(lower, "manifest unknown"):
		return text + "; look whether name and tag are right"
	case strings.Contains(lower, "no such host"), strings.Contains(lower, "connection refused"), strings.Contains(lower, "i/o timeout"):
		return text + "; the daemon cannot reach that registry"
	}
	return text
}

// layers adds up the progress of a pull.
type layers struct {
	say   func(string, float64)
	next  time.Time
	order []string
	each  map[string]layer
}

type layer struct {
	done           bool
	loaded, amount int64
}

func newLayers(say func(string, float64)) *layers { return &layers{say: say, each: map[string]layer{}} }

// sayEvery is how often progress is told at most.
const sayEvery = 500 * time.Millisecond

func (l *layers) take(m jsonmessage.JSONMessage) {
	if m.ID == "" || strings.HasPrefix(m.Status, "Pulling from") {
		return
	}
	one, known := l.each[m.ID]
	if !known {
		l.order = append(l.order, m.ID)
	}
	switch m.Status {
	case "Downloading":
		if m.Progress != nil {
			one.loaded, one.amount = m.Progress.Current, max(m.Progress.Total, one.amount)
		}
	case "Download complete", "Verifying Checksum", "Extracting":
		one.loaded = one.amount
	case "Pull complete", "Already exists":
		one.loaded, one.done = one.amount, true
	}
	l.each[m.ID] = one
	done, loaded, amount := 0, int64(0), int64(0)
	for _, one := range l.each {
		if one.done {
			done++
		}
		loaded, amount = loaded+one.loaded, amount+one.amount
	}
	if now := time.Now(); now.Before(l.next) && done < len(l.each) {
		return
	} else {
		l.next = now.Add(sayEvery)
	}
	message, percent := fmt.Sprintf("%d of %d layers", done, len(l.each)), float64(-1)
	if amount > 0 {
		message += fmt.Sprintf(", %s of %s", units.BytesSize(float64(loaded)), units.BytesSize(float64(amount)))
		percent = float64(100*loaded) / float64(amount)
	}
	l.say(message, percent)
}

// credentials are those of the image's registry, "" where there are none, as the API has them.
func (m *images) credentials(ctx context.Context, named reference.Named) (string, error) {
	ctx, cancel := m.daemon.bounded(ctx)
	defer cancel()
	auth, err := lookUpCredentials(ctx, m.config.CredentialsDir, reference.Domain(named))
	if err != nil || auth == (registry.AuthConfig{}) {
		return "", err
	}
	return registry.EncodeAuthConfig(auth)
}

// prePull pulls what the operator wants to have at hand.
func (e *Engine) prePull(ctx context.Context) {
	for _, name := range e.config.PrePull {
		named, err := engines.ImageName(name)
		if err == nil {
			_, err = e.daemon.look(ctx, true)
		}
		if err == nil {
			_, err = e.images.pull(ctx, named, "", nil)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			e.log.Warn().Str("image", name).Str("reason", contracts.AsError(err).Message).Msg("an image cannot be pulled ahead; it will be when a run needs it")
		} else {
			e.log.Info().Str("image", name).Msg("pulled an image ahead")
		}
	}
}
