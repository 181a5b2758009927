package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/strslice"

	"github.com/praxis-sdk/executor/internal/engines/docker/boot"
)

// cacheVolume is the volume of a named cache. Caches outlive executors: that is what they are for.
func cacheVolume(name string) string { return "executor-cache-" + name }

// readyCache sees to it that the volume of a cache is there, and that tools may write to it, whoever they are.
func (e *Engine) readyCache(ctx context.Context, name string) error {
	if _, err := e.anchor.get(ctx); err != nil { // what may take long, before others wait for this one
		return err
	}
	bounded, cancel := e.daemon.bounded(ctx)
	defer cancel()
	_, err := e.daemon.VolumeInspect(bounded, cacheVolume(name))
	switch {
	case err == nil && e.cached.has(name):
		return nil
	case cerrdefs.IsNotFound(err):
		e.cached.release(name) // somebody removed it
		err = nil
	}
	// One that is there is made ready all the same, once: who made it may have been killed before tools could write to it.
	if err == nil {
		err = e.makeCacheOnce(ctx, bounded, name)
	}
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return e.daemon.unavailable("make the cache "+name, err)
	}
	return nil
}

// makeCacheOnce makes a cache ready, one run at a time, which the others wait for as long as for a call: where the daemon hangs they do not wait one after another.
func (e *Engine) makeCacheOnce(ctx, bounded context.Context, name string) error {
	place, _ := e.caching.LoadOrStore(name, make(chan struct{}, 1))
	select {
	case place.(chan struct{}) <- struct{}{}:
		defer func() { <-place.(chan struct{}) }()
	case <-bounded.Done():
		return context.Cause(bounded)
	}
	if e.cached.has(name) { // by the one before
		return nil
	}
	if err := e.makeCache(ctx, name); err != nil {
		return err
	}
	e.cached.hold(name)
	return nil
}

// makeCache makes a volume, where it is not there yet, whose directory everybody may write to. A volume is root's when it is made; that changes by a file of
// an archive, unpacked into a container that never runs.
func (e *Engine) makeCache(ctx context.Context, name string) error {
	if _, err := e.anchor.get(ctx); err != nil { // the image is there then
		return err
	}
	bounded, cancel := e.daemon.bounded(ctx)
	defer cancel()
	labels := e.labels(roleCache, e.now().Add(overdue))
	called := fmt.Sprintf("%s-%d", e.name, e.number.Add(1))
	e.held.hold(called) // until it is of no use any more, however long that takes
	defer e.held.release(called)
	made, err := e.daemon.ContainerCreate(bounded, &container.Config{Image: e.anchor.imageName(), Entrypoint: strslice.StrSlice{boot.Program}, Labels: labels},
		&container.HostConfig{NetworkMode: "none", LogConfig: container.LogConfig{Type: "none"}, Mounts: []mount.Mount{{
			Type: mount.TypeVolume, Source: cacheVolume(name), Target: caches + "/" + name,
			VolumeOptions: &mount.VolumeOptions{NoCopy: true, Labels: map[string]string{labelManaged: "true", labelRole: roleCache}},
		}}}, nil, nil, called)
	if err != nil {
		return err
	}
	defer e.graves.bury(made.ID, false)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o777}); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return e.daemon.CopyToContainer(bounded, made.ID, caches, &b, container.CopyToContainerOptions{}) // what fails the next run tries again
}
