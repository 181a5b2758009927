package executor

import (
	"context"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/rs/zerolog"
)

// Times of watching.
const (
	// lookAgain is how long, where the registry has no other time, a change stays unseen of which the system does not tell: on a network file system, or in a
	// directory that was put in the place of another.
	lookAgain = 3 * time.Second
	// quiet is how long nothing may happen before files are read, so that whoever writes them comes to an end; but not
	// later than atLast after the first that happened.
	quiet  = 100 * time.Millisecond
	atLast = time.Second
	// How much longer than a look the pause after it is, at least, so that a large tree is not looked at all the time:
	// where nothing is heard, and where something is.
	breather      = 20
	shortBreather = 5
)

// Watch looks for changes in the directories that Load was given, until ctx ends: files that are new, changed or gone. A
// file that is wrong, and a directory that cannot be read, are named in the log once, and what they had stays.
func (r *Registry) Watch(ctx context.Context, log zerolog.Logger) {
	w := watch{registry: r, log: log}
	var events chan fsnotify.Event
	var failures chan error
	var err error
	if w.notifier, err = fsnotify.NewWatcher(); err != nil {
		w.complain(err)
	} else {
		defer func() { _ = w.notifier.Close() }()
		events, failures = w.notifier.Events, w.notifier.Errors
	}
	pause := w.look() // also what changed since Load
	timer := time.NewTimer(pause)
	defer timer.Stop()
	var first time.Time // that something happened after the last look; zero: nothing has
	for {
		select {
		case <-ctx.Done():
			return
		case e, open := <-events:
			if !open || !concerns(e) {
				continue
			}
			if first.IsZero() {
				first = time.Now()
			}
			timer.Reset(max(min(quiet, time.Until(first.Add(atLast))), time.Until(w.rested)))
			continue
		case err := <-failures: // as events that were too many
			log.Debug().Err(err).Msg("the system does not tell of all changes in directories of contracts; looking")
		case <-timer.C:
		}
		pause = w.look()
		first = time.Time{}
		timer.Reset(pause)
	}
}

// concerns reports whether an event can be about contracts: tools write other files beside them.
func concerns(e fsnotify.Event) bool {
	return e.Has(fsnotify.Create) || e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename) || contractExtension(e.Name)
}

type watch struct {
	registry   *Registry
	log        zerolog.Logger
	notifier   *fsnotify.Watcher // nil: the system does not tell
	rested     time.Time         // when it may look again
	complained bool
}

// look reads what has changed and returns how long to wait for the next look if nothing is heard.
func (w *watch) look() time.Duration {
	r := w.registry
	r.reading.Lock()
	defer r.reading.Unlock()
	begin := time.Now()
	changed, soon := r.scan()
	if w.notifier != nil {
		heard := false // what happened between the look and the beginning to listen is found by another look
		for _, d := range r.directories {
			heard = w.listen(d) || heard
		}
		if heard {
			var again bool
			again, soon = r.scan()
			changed = changed || again
		}
	}
	if changed {
		r.merge(w.log)
	}
	took := time.Since(begin)
	w.rested = time.Now().Add(shortBreather * took)
	if soon {
		return max(vanished, shortBreather*took)
	}
	return max(r.lookAgain, breather*took)
}

// listen has the system tell of changes in a directory and those in it. It reports whether any of them is new. One that was
// removed and is there again has to be added again, so that all are, each time; that costs little.
func (w *watch) listen(d *directory) (added bool) {
	before := len(w.notifier.WatchList())
	for _, dir := range d.inner {
		if err := w.notifier.Add(dir); err != nil {
			w.complain(err)
		}
	}
	return len(w.notifier.WatchList()) > before
}

// complain says once that changes are seen late: the system has a bound on watched directories.
func (w *watch) complain(err error) {
	if !w.complained {
		w.complained = true
		w.log.Warn().Err(err).Stringer("within", w.registry.lookAgain).Msg("the system does not tell of changes in directories of contracts; they are looked at from time to time")
	}
}
