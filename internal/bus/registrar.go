package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// Registrar writes the registry of contracts, for operators. Executors only read it.
type Registrar struct {
	bucket jetstream.KeyValue
	name   string

	mu     sync.Mutex
	denied error
	cancel context.CancelCauseFunc // of what is under way; nil: nothing is
}

// What Put did, or would do.
const (
	PutNew      = "new"      // there was none with that name and version
	PutSame     = "same"     // there was this one: nothing was written
	PutReplaced = "replaced" // there was another one
)

// putTries is how often Put begins again where somebody else wrote at the same time.
const putTries = 10

// OpenRegistrar finds the registry of the fleet with a subject prefix. The connection stays the caller's; its errors out of turn
// are the registrar's from now on: what a user may not do NATS says in no other way.
func OpenRegistrar(ctx context.Context, nc *nats.Conn, prefix string) (*Registrar, error) {
	subjects, err := contracts.NewSubjects(prefix)
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(requestTimeout))
	if err != nil {
		return nil, err
	}
	r := &Registrar{name: subjects.Name(bucketContracts)}
	nc.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { r.heard(err) })
	err = r.do(ctx, func(ctx context.Context) error {
		var err error
		r.bucket, err = js.KeyValue(ctx, r.name)
		return err
	})
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil, fmt.Errorf("there is no registry of contracts here, the bucket %s: the first executor that starts makes it, or executor provision", r.name)
	}
	return r, err
}

// heard ends what is under way where NATS denies it: it would wait in vain.
func (r *Registrar) heard(err error) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.denied = err
	if r.cancel != nil {
		r.cancel(err)
	}
}

// do does something in a bounded time, and says what it needs where it is denied.
func (r *Registrar) do(ctx context.Context, what func(context.Context) error) error {
	ctx, stop := context.WithTimeout(ctx, requestTimeout)
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.mu.Lock()
	r.denied, r.cancel = nil, cancel
	r.mu.Unlock()
	err := what(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cancel = nil
	if err != nil && r.denied != nil {
		return fmt.Errorf("this user may not do that (%w); the registry of contracts is for operators: they publish to $KV.%s.>, and read by $JS.API.STREAM.INFO.KV_%[2]s, "+
			"$JS.API.DIRECT.GET.KV_%[2]s.> and $JS.API.CONSUMER.CREATE.KV_%[2]s.>; use other credentials: --creds or --context", r.denied, r.name)
	}
	return err
}

// Put stores a contract under its name and version, unless that is what is there; with dry it only looks. It returns one of
// PutNew, PutSame and PutReplaced. The contract must be registrable.
func (r *Registrar) Put(ctx context.Context, c *contracts.Contract, dry bool) (did string, err error) {
	key := contracts.Key(c.Name, c.Version)
	value, err := c.MarshalJSON()
	if err != nil {
		return "", err
	}
	err = r.do(ctx, func(ctx context.Context) error {
		for try := range putTries {
			if did, err = r.put(ctx, key, value, dry); !errors.Is(err, errMeanwhile) {
				return err
			}
			select { // what was read may be a copy that lags
			case <-time.After(time.Duration(try+1) * 10 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("store %s: %w", key, err)
	}
	return did, nil
}

var errMeanwhile = errors.New("somebody else writes it all the time")

func (r *Registrar) put(ctx context.Context, key string, value []byte, dry bool) (string, error) {
	entry, err := r.bucket.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		if !dry {
			_, err = r.bucket.Create(ctx, key, value)
			return PutNew, meanwhile(err)
		}
		return PutNew, nil
	}
	if err != nil {
		return "", err
	}
	if same(key, entry.Value(), value) {
		return PutSame, nil
	}
	if !dry {
		_, err = r.bucket.Update(ctx, key, value, entry.Revision())
	}
	return PutReplaced, meanwhile(err)
}

// meanwhile is errMeanwhile where somebody else wrote between our reading and writing.
func meanwhile(err error) error {
	var api *jetstream.APIError
	if errors.Is(err, jetstream.ErrKeyExists) || errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
		return errMeanwhile
	}
	return err
}

// same reports whether a stored value is the contract that is to be stored, also where another program or version wrote it
// in other words.
func same(key string, stored, value []byte) bool {
	if bytes.Equal(stored, value) {
		return true
	}
	c, err := contracts.DecodeRegistered(key, stored)
	if err != nil {
		return false
	}
	again, err := c.MarshalJSON()
	return err == nil && bytes.Equal(again, value)
}

// Remove removes what is under a key. Its history stays.
func (r *Registrar) Remove(ctx context.Context, key string) error {
	err := r.do(ctx, func(ctx context.Context) error { return r.bucket.Delete(ctx, key) })
	if err != nil {
		return fmt.Errorf("remove %s: %w", key, err)
	}
	return nil
}

// Keys lists the keys of the registry, sorted, also those of values that are wrong.
func (r *Registrar) Keys(ctx context.Context) (keys []string, err error) {
	err = r.do(ctx, func(ctx context.Context) error {
		watcher, err := r.bucket.WatchAll(ctx, jetstream.IgnoreDeletes(), jetstream.MetaOnly())
		if err != nil {
			return err
		}
		v := view{watcher: watcher, entries: map[string][][]byte{}}
		defer v.close()
		if err := v.first(ctx); err != nil {
			return err
		}
		for key := range v.entries {
			keys = append(keys, key)
		}
		slices.Sort(keys)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the registry of contracts: %w", err)
	}
	return keys, nil
}
