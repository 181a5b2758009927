package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	imageapi "github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/strslice"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines/docker/boot"
)

// anchor is a container that lives as long as the executor and does nothing. It has a volume without a name that holds this
// program, which all other containers have mounted and start with: so it gets to any daemon, wherever that is. It hangs on a
// connection of the executor. When that ends, the container does, the daemon removes it, and with the last container the volume:
// an executor that was killed leaves nothing, whoever comes after it.
type anchor struct {
	daemon *daemon
	config Config
	name   string
	labels map[string]string
	graves *graves

	held       *names
	background context.Context // ends with the engine
	number     int

	mu      sync.Mutex
	id      string // "": there is none
	before  string // the id of the last that was lost
	called  string // its name
	streams types.HijackedResponse
	image   string  // its name
	making  *making // nil: none is being made
}

// making is an anchor that is being made, which those wait for that need one.
type making struct {
	done chan struct{} // closed: the rest is set
	id   string
	err  error
}

// initImage is the repository of the images that hold this program.
const initImage = "executor-init"

func newAnchor(background context.Context, d *daemon, config Config, name string, labels map[string]string, graves *graves, held *names) *anchor {
	return &anchor{background: background, daemon: d, config: config, name: name, labels: labels, graves: graves, held: held}
}

func (a *anchor) current() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.id
}

// lost forgets an anchor that is not there any more. The reaper removes it if it is.
func (a *anchor) lost(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.id == id && id != "" {
		a.id, a.before = "", id
		a.streams.Close()
		a.held.release(a.called)
		a.called = ""
	}
}

// get returns the id of the anchor. Where there is none, one is made for all who ask, and goes on being made when they do not wait any
// longer: it takes its time to bring this program to a daemon far away, more than a look at whether the engine is well may take.
func (a *anchor) get(ctx context.Context) (string, error) {
	a.mu.Lock()
	if a.id != "" {
		defer a.mu.Unlock()
		return a.id, nil
	}
	m := a.making
	if m == nil {
		if err := a.background.Err(); err != nil {
			a.mu.Unlock()
			return "", err
		}
		m = &making{done: make(chan struct{})}
		a.making = m
		a.graves.do(func() { a.make(m) })
	}
	a.mu.Unlock()
	select {
	case <-m.done:
		return m.id, m.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// make makes an anchor.
func (a *anchor) make(m *making) {
	var name, called string
	var streams types.HijackedResponse
	if name, m.err = a.load(a.background); m.err == nil {
		var err error
		if m.id, called, streams, err = a.start(a.background, name); err != nil {
			m.err = a.daemon.unavailable("start the container that holds this program", err)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.making = nil
	close(m.done)
	if m.err != nil {
		return
	}
	a.id, a.called, a.streams, a.image = m.id, called, streams, name
	go func() { // ends with the connection
		_, _ = io.Copy(io.Discard, streams.Reader)
		a.lost(m.id)
	}()
}

// load sees to it that there is an image that holds this program, and returns its name.
func (a *anchor) load(ctx context.Context) (string, error) {
	file := a.config.Program
	if file == "" {
		var err error
		if file, err = os.Executable(); err != nil {
			return "", contracts.Errorf(contracts.EngineUnavailable, "find this program, which containers start with: %s", err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", contracts.Errorf(contracts.EngineUnavailable, "read this program, which containers start with: %s", err)
	}
	if err := static(bytes.NewReader(text)); err != nil {
		return "", contracts.Errorf(contracts.EngineUnavailable, "%s cannot start in containers: %s; build it with CGO_ENABLED=0 for Linux, or set execution.docker.program to one that is", file, err)
	}
	sum := sha256.Sum256(text)
	name := initImage + ":" + hex.EncodeToString(sum[:8])
	bounded, cancel := a.daemon.bounded(ctx)
	defer cancel()
	if _, err := a.daemon.ImageInspect(bounded, name); err == nil {
		return name, nil
	} else if !cerrdefs.IsNotFound(err) {
		return "", a.daemon.unavailable("look for the image that holds this program", err)
	}
	archive, err := archiveOf(text)
	if err != nil {
		return "", contracts.Errorf(contracts.EngineUnavailable, "pack this program: %s", err)
	}
	if err := a.send(ctx, name, archive); err != nil {
		return "", a.daemon.unavailable("import the image that holds this program", err)
	}
	return name, nil
}

// send imports an image. That may take as long as a pull, as long as it gets on.
func (a *anchor) send(ctx context.Context, name string, archive io.Reader) error {
	ctx, cancel := context.WithTimeoutCause(ctx, a.config.PullTimeout, errSlow)
	defer cancel()
	ctx, stall := context.WithCancelCause(ctx)
	defer stall(nil)
	timer := time.AfterFunc(a.daemon.timeout, func() { stall(errSlow) })
	defer timer.Stop()
	source := reader(func(p []byte) (int, error) {
		timer.Reset(a.daemon.timeout)
		return archive.Read(p)
	})
	answer, err := a.daemon.ImageImport(ctx, imageapi.ImportSource{Source: source, SourceName: "-"}, name, imageapi.ImportOptions{Changes: []string{"LABEL " + labelManaged + "=true"}})
	if err == nil {
		_, err = io.Copy(io.Discard, reader(func(p []byte) (int, error) {
			timer.Reset(a.daemon.timeout)
			return answer.Read(p)
		}))
		answer.Close()
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

type reader func([]byte) (int, error)

func (r reader) Read(p []byte) (int, error) { return r(p) }

// static reports an error where a program needs more than itself.
func static(program io.ReaderAt) error {
	file, err := elf.NewFile(program)
	if err != nil {
		return fmt.Errorf("it is no program for Linux (%w)", err)
	}
	for _, part := range file.Progs {
		if part.Type == elf.PT_INTERP {
			return fmt.Errorf("it is linked to libraries that images may not have")
		}
	}
	return nil
}

func archiveOf(program []byte) (io.Reader, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: boot.Dir[1:] + "/", Mode: 0o755})
	if err == nil {
		err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: boot.Program[1:], Mode: 0o555, Size: int64(len(program))})
	}
	if err == nil {
		_, err = w.Write(program)
	}
	if err == nil {
		err = w.Close()
	}
	return &b, err
}

func (a *anchor) start(ctx context.Context, imageName string) (id, called string, streams types.HijackedResponse, err error) {
	pids := int64(64)
	a.number++
	name := fmt.Sprintf("%s-anchor-%d", a.name, a.number)
	a.held.hold(name) // before it is there: the reaper may look at any moment
	defer func() {
		if err != nil {
			a.held.release(name)
		}
	}()
	// The daemon makes it also where nobody waits for the answer any more: only the time ends this.
	bounded, cancel := a.graves.bounded()
	defer cancel()
	made, err := a.daemon.ContainerCreate(bounded, &container.Config{
		Image: imageName, User: "65534:65534", Entrypoint: strslice.StrSlice{boot.Program}, Cmd: strslice.StrSlice{boot.Anchor}, Env: bootEnv,
		OpenStdin: true, StdinOnce: true, AttachStdin: true, AttachStdout: true, AttachStderr: true, NetworkDisabled: true,
		Volumes: map[string]struct{}{boot.Dir: {}}, Labels: a.labels,
	}, &container.HostConfig{
		AutoRemove: true, LogConfig: container.LogConfig{Type: "none"}, NetworkMode: "none", ReadonlyRootfs: true, CapDrop: strslice.StrSlice{"ALL"},
		SecurityOpt: []string{"no-new-privileges"}, Resources: container.Resources{PidsLimit: &pids},
	}, nil, nil, name)
	if err != nil {
		a.graves.bury(name, false) // it may have been made all the same
		return "", "", streams, err
	}
	if streams, err = a.daemon.attach(ctx, made.ID); err == nil {
		if err = a.daemon.ContainerStart(bounded, made.ID, container.StartOptions{}); err != nil {
			streams.Close()
		}
	}
	if err != nil {
		a.graves.bury(made.ID, false)
		return "", "", streams, err
	}
	return made.ID, name, streams, nil
}

// settle waits for one that is being made, which ends with the engine.
func (a *anchor) settle() {
	a.mu.Lock()
	m := a.making
	a.mu.Unlock()
	if m != nil {
		<-m.done
	}
}

// close ends the anchor, and removes the image if nobody else uses it.
func (a *anchor) close() {
	a.settle()
	a.mu.Lock()
	id, before, name, streams := a.id, a.before, a.image, a.streams
	a.id = ""
	if id != "" {
		a.held.release(a.called)
	}
	a.mu.Unlock()
	if name == "" {
		return
	}
	if id != "" {
		streams.Close()
		a.graves.bury(id, true)
	}
	if before != "" { // it may be on its way still, and has the image
		a.graves.bury(before, true)
	}
	a.graves.wait()
	ctx, cancel := a.graves.bounded()
	defer cancel()
	_, _ = a.daemon.ImageRemove(ctx, name, imageapi.RemoveOptions{}) // another executor may use it
}

func (a *anchor) imageName() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.image
}
