package docker

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	imageapi "github.com/docker/docker/api/types/image"
)

// Times of the reaper.
const (
	reapEvery = time.Minute
	// abandoned is how old something has to be that nobody seems to need: its executor may just be about it.
	abandoned = 2 * time.Minute
)

// keepOrder looks for what dead executors left, now and from time to time, until ctx ends.
//
// A container that runs has an executor: its first process ends with the connection to that. What can be left is one that was
// made and never started, one that the daemon could not remove, and one whose daemon lost sight of it.
func (e *Engine) keepOrder(ctx context.Context) {
	ticks := time.NewTicker(reapEvery)
	defer ticks.Stop()
	for {
		if err := e.reap(ctx); err != nil && ctx.Err() == nil {
			e.log.Debug().Err(err).Msg("cannot look for what dead executors left")
		}
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return
		}
	}
}

// names are a set of names, as of the containers that an engine knows of: runs, those that wait for one, and the anchor.
type names struct{ all sync.Map }

func (n *names) hold(name string)     { n.all.Store(name, true) }
func (n *names) release(name string)  { n.all.Delete(name) }
func (n *names) has(name string) bool { _, is := n.all.Load(name); return is }

// nameOf is the name of a container that an engine made, whose names begin with its own; "" for all others. Labels alone do not say
// who made one: a container of an image that somebody made of ours (docker commit) has them too.
func nameOf(c container.Summary) string {
	owner := c.Labels[labelOwner]
	for _, name := range c.Names { // others are those of links
		if name := strings.TrimPrefix(name, "/"); owner != "" && strings.HasPrefix(name, owner+"-") {
			return name
		}
	}
	return ""
}

// reap removes what dead executors left. What has not our label is not even looked at.
func (e *Engine) reap(ctx context.Context) error {
	return e.reapOlder(ctx, func(string) time.Duration { return abandoned })
}

// reapOlder is reap that is told when something is abandoned, by its owner, or by its name where that is an image: tests do not wait
// that long for theirs, and let others on the same daemon have their time.
func (e *Engine) reapOlder(ctx context.Context, abandoned func(of string) time.Duration) error {
	if _, err := e.daemon.look(ctx, true); err != nil { // first, because it settles which version of the API is spoken
		return err
	}
	bounded, cancel := e.daemon.bounded(ctx)
	defer cancel()
	ours := filters.NewArgs(filters.Arg("label", labelManaged+"=true"))
	list, err := e.daemon.ContainerList(bounded, container.ListOptions{All: true, Filters: ours})
	if err != nil {
		return err
	}
	alive := map[string]bool{e.name: true}
	for _, c := range list {
		if nameOf(c) != "" && c.Labels[labelRole] == roleAnchor && c.State == container.StateRunning {
			alive[c.Labels[labelOwner]] = true
		}
	}
	info, err := e.daemon.Info(bounded) // and not what it said before
	if err != nil {
		return err
	}
	// How old something is is by the daemon's clock, which is not that of the deadlines.
	now, today := time.Now(), time.Now()
	if at, err := time.Parse(time.RFC3339Nano, info.SystemTime); err == nil {
		today = at
	}
	for _, c := range list {
		owner, name := c.Labels[labelOwner], nameOf(c)
		if name == "" {
			continue // somebody else's, who uses the same label
		}
		if e.held.has(name) {
			continue // in use, whatever its labels say
		}
		deadline, _ := strconv.ParseInt(c.Labels[labelDeadline], 10, 64)
		// One that is overdue is left to its executor while that lives, whose clock may be another: it knows which ones it uses, and removes
		// the rest itself.
		late := deadline > 0 && now.After(time.Unix(deadline, 0)) && (owner == e.name || !alive[owner])
		old := today.Sub(time.Unix(c.Created, 0)) > abandoned(owner)
		over := c.State != container.StateRunning && c.State != container.StatePaused
		// An executor has its anchor before it makes anything else.
		dead := !alive[owner] && (old || c.Labels[labelRole] != roleAnchor)
		// One of our own that is not in use: its connection broke, or nobody waited for the answer of the daemon.
		lost := owner == e.name && c.Labels[labelRole] == roleAnchor
		if late || lost || over && (dead || old) { // of our own, what could not be removed before
			e.log.Info().Str("container", c.ID[:12]).Str("owner", owner).Str("run", c.Labels[labelRun]).Str("state", c.State).Msg("removing a container that was left behind")
			e.graves.bury(c.ID, false)
		}
	}
	return e.reapImages(bounded, ours, today, abandoned)
}

// reapImages removes images that hold programs which no container uses.
func (e *Engine) reapImages(ctx context.Context, ours filters.Args, now time.Time, abandoned func(of string) time.Duration) error {
	list, err := e.daemon.ImageList(ctx, imageapi.ListOptions{Filters: ours})
	if err != nil {
		return err
	}
	for _, i := range list {
		for _, name := range i.RepoTags { // by name: what somebody else made of ours has the label too
			if strings.HasPrefix(name, initImage+":") && now.Sub(time.Unix(i.Created, 0)) > abandoned(name) {
				_, _ = e.daemon.ImageRemove(ctx, name, imageapi.RemoveOptions{}) // fails where a container uses it
			}
		}
	}
	return nil
}
