package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Times of the registry.
const (
	// registryLook is how long it stays unseen that the bucket was made again, or emptied by other means than writing to it:
	// of that a watcher hears nothing.
	registryLook = 5 * time.Second
	// registryPause is the wait after a failure, longer each time up to registryPauses.
	registryPause  = 50 * time.Millisecond
	registryPauses = 2 * time.Second
)

// registryCatchUp bounds how long somebody waits for what was stored before he asked.
var registryCatchUp = time.Second // a variable for tests

// Registry is the registry of contracts, a bucket, as an executor sees it: it reads.
type Registry struct {
	bus     *Bus
	changed func(map[string][][]byte)

	mu    sync.Mutex
	seen  uint64        // what was stored up to here has been told
	moved chan struct{} // closed when seen grows

	asking sync.Mutex
	asked  time.Time // when the last question began that CatchUp got its answer to
}

// Registry makes the view of the registry. changed is told all that is there, each time that it is other than before: by key
// the values that the bucket still has, the oldest first. It must not change them.
func (b *Bus) Registry(changed func(map[string][][]byte)) *Registry {
	return &Registry{bus: b, changed: changed, moved: make(chan struct{})}
}

// Read tells once what is there. An executor does so before it takes requests.
func (r *Registry) Read(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	v, err := r.open(ctx)
	if err != nil {
		return r.bus.explain(fmt.Errorf("read the registry of contracts: %w", err))
	}
	defer v.close()
	if err := v.first(ctx); err != nil {
		return r.bus.explain(fmt.Errorf("read the registry of contracts: %w", err))
	}
	r.tell(v)
	return nil
}

// Follow tells every change until ctx ends. While the bucket cannot be read nothing is told, so that what was known stays;
// one that is gone is made again, and is empty then. Trouble is logged once, not each time. It may be called once.
func (r *Registry) Follow(ctx context.Context) {
	again := make(chan struct{}, 1)
	r.bus.OnReconnect(func() {
		select {
		case again <- struct{}{}:
		default:
		}
	})
	failing := false
	for pause := registryPause; r.bus.await(ctx) == nil; pause = min(2*pause, registryPauses) {
		begun := time.Now()
		err := r.follow(ctx, again)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			failing, pause = false, registryPause
			continue
		case time.Since(begun) > registryLook: // it worked until now
			failing, pause = false, registryPause
		}
		if r.bus.Connected() && !failing {
			failing = true
			r.bus.log.Warn().Err(r.bus.explain(err)).Msg("cannot read the registry of contracts; what is known of it stays")
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-again:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// follow tells changes as long as one watcher lasts: until the connection was lost for a moment, or the bucket is another.
// A watcher that lost its server could wait for ever, for what the server has forgotten.
func (r *Registry) follow(ctx context.Context, again <-chan struct{}) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	v, err := r.open(ctx)
	if err != nil {
		return err
	}
	defer v.close()
	if err := v.first(ctx); err != nil {
		return err
	}
	r.tell(v)
	ticker := time.NewTicker(registryLook)
	defer ticker.Stop()
	for {
		select {
		case entry, open := <-v.watcher.Updates():
			if !open {
				return errors.New("the watch has ended")
			}
			v.take(entry)
			for more := true; more; { // what was pushed together becomes one change
				select {
				case entry, more = <-v.watcher.Updates():
					v.take(entry)
				default:
					more = false
				}
			}
			r.tell(v)
		case <-ticker.C:
			now, err := r.look(ctx)
			if err != nil {
				return err
			}
			if now != v.at {
				return nil
			}
		case <-again:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// CatchUp returns when all that was stored before the call has been told, or after a second.
func (r *Registry) CatchUp(ctx context.Context) {
	begin := time.Now()
	r.asking.Lock()
	defer r.asking.Unlock()
	if r.asked.After(begin) || !r.bus.Connected() {
		return // somebody else's question is enough for this one too
	}
	ctx, cancel := context.WithTimeout(ctx, registryCatchUp)
	defer cancel()
	begin = time.Now()
	defer func() { r.asked = begin }() // a failure as well: who waited meanwhile does not wait for another
	now, err := r.look(ctx)
	if err != nil {
		return
	}
	for {
		r.mu.Lock()
		seen, moved := r.seen, r.moved
		r.mu.Unlock()
		if seen >= now.last {
			return
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return
		}
	}
}

// tell passes on what a view has.
func (r *Registry) tell(v *view) {
	entries := make(map[string][][]byte, len(v.entries))
	for key, values := range v.entries {
		entries[key] = slices.Clone(values)
	}
	r.changed(entries)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = v.seen
	close(r.moved)
	r.moved = make(chan struct{})
}

// contents is what tells one state of the bucket from another.
type contents struct {
	created     time.Time
	first, last uint64
	messages    uint64
}

func (r *Registry) look(ctx context.Context) (contents, error) {
	stream, err := r.bus.js.Stream(ctx, "KV_"+r.bus.subjects.Name(bucketContracts))
	if err != nil {
		return contents{}, err
	}
	info := stream.CachedInfo()
	return contents{info.Created, info.State.FirstSeq, info.State.LastSeq, info.State.Msgs}, nil
}

// view is what one watcher has seen of the bucket.
type view struct {
	watcher jetstream.KeyWatcher
	at      contents // before the watcher began
	entries map[string][][]byte
	seen    uint64
}

// open begins to watch. The watcher ends with ctx.
func (r *Registry) open(ctx context.Context) (*view, error) {
	at, err := r.look(ctx)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if _, err = r.bus.ensureBucket(ctx, r.bus.contractsBucket(), mend, &Declared{}); err != nil {
			return nil, err
		}
		at, err = r.look(ctx)
	}
	if err != nil {
		return nil, err
	}
	bucket, err := r.bus.js.KeyValue(ctx, r.bus.subjects.Name(bucketContracts))
	if err != nil {
		return nil, err
	}
	watcher, err := bucket.WatchAll(ctx, jetstream.IncludeHistory())
	if err != nil {
		return nil, err
	}
	return &view{watcher: watcher, at: at, entries: map[string][][]byte{}, seen: at.last}, nil
}

// first takes all that is there at the beginning.
func (v *view) first(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	for {
		select {
		case entry, open := <-v.watcher.Updates():
			switch {
			case !open:
				return errors.New("the watch has ended")
			case entry == nil:
				return nil
			}
			v.take(entry)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (v *view) take(entry jetstream.KeyValueEntry) {
	if entry == nil {
		return
	}
	v.seen = max(v.seen, entry.Revision())
	key := entry.Key()
	if entry.Operation() != jetstream.KeyValuePut {
		delete(v.entries, key)
		return
	}
	v.entries[key] = append(v.entries[key], entry.Value())
	v.entries[key] = v.entries[key][max(0, len(v.entries[key])-contractsHistory):]
}

// close ends the watcher. Who delivers to it must not be left waiting.
func (v *view) close() {
	v.watcher.Stop()
	for wait := time.After(time.Second); ; {
		select {
		case _, open := <-v.watcher.Updates():
			if !open {
				return
			}
		case <-wait:
			return
		}
	}
}
