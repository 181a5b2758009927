package docker

import (
	"context"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/rs/zerolog"
)

// graves removes containers whose tools have ended. Nothing runs in them any more; only their names and directories are left, and
// no run waits for those to go. There is a bound on how many are removed at a time; the others queue, and so hold up nobody where the
// daemon hangs.
type graves struct {
	daemon *daemon
	log    zerolog.Logger
	places chan struct{}

	mu      sync.Mutex
	work    int        // goroutines that are under way
	settled *sync.Cond // there are none

	ctx context.Context // of all removals
	end context.CancelFunc
}

const mostGraves = 64

func newGraves(d *daemon, log zerolog.Logger) *graves {
	ctx, end := context.WithCancel(context.Background())
	g := &graves{daemon: d, log: log, places: make(chan struct{}, mostGraves), ctx: ctx, end: end}
	g.settled = sync.NewCond(&g.mu)
	return g
}

// do does something in the background that wait waits for. A WaitGroup will not do: while one waits, others begin anew from none.
func (g *graves) do(one func()) {
	g.mu.Lock()
	g.work++
	g.mu.Unlock()
	go func() {
		defer func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			if g.work--; g.work == 0 {
				g.settled.Broadcast()
			}
		}()
		one()
	}()
}

// bury has a container removed. One that ends by itself is removed by the daemon, which is only watched.
func (g *graves) bury(id string, byItself bool) {
	g.do(func() {
		select {
		case g.places <- struct{}{}:
		case <-g.ctx.Done():
			g.leave(id, g.ctx.Err())
			return
		}
		defer func() { <-g.places }()
		if byItself && g.gone(id) {
			return
		}
		g.remove(id)
	})
}

// bounded is a context for a call that cleans up.
func (g *graves) bounded() (context.Context, context.CancelFunc) {
	return g.daemon.bounded(g.ctx)
}

// gone waits until the daemon has removed a container.
func (g *graves) gone(id string) bool {
	ctx, cancel := g.bounded()
	defer cancel()
	removed, failed := g.daemon.ContainerWait(ctx, id, container.WaitConditionRemoved)
	select {
	case <-removed:
		return true
	case err := <-failed:
		return cerrdefs.IsNotFound(err)
	}
}

// remove removes a container, whatever it does. What cannot be removed now is found by the reaper.
func (g *graves) remove(id string) {
	var err error
	for pause := 50 * time.Millisecond; pause < 4*time.Second; pause *= 3 {
		ctx, cancel := g.bounded()
		err = g.daemon.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
		cancel()
		if err == nil || cerrdefs.IsNotFound(err) {
			return
		}
		select {
		case <-time.After(pause): // "removal is already in progress", or a daemon that does not answer
		case <-g.ctx.Done():
			g.leave(id, err)
			return
		}
	}
	g.leave(id, err)
}

// leave leaves a container to the reaper, this engine's or another's.
func (g *graves) leave(id string, err error) {
	g.log.Warn().Err(err).Str("container", id).Msg("a container cannot be removed now; it is tried again later")
}

// kill ends a container that does not end by itself.
func (g *graves) kill(id string) {
	g.do(func() {
		ctx, cancel := g.bounded()
		defer cancel()
		_ = g.daemon.ContainerKill(ctx, id, "KILL") // it may have ended; else it is removed by force
	})
}

// wait returns when all are removed that were to be.
func (g *graves) wait() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.work > 0 {
		g.settled.Wait()
	}
}
