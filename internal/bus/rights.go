package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// Rights tries what an executor must be allowed to do and returns what it may not, as "publish tools.reply.*.status". It
// changes nothing: what it publishes says that it is for another stream than the one that would take it, so that the
// server refuses it, once it is allowed to be published at all.
func (b *Bus) Rights(ctx context.Context, engines []string) ([]string, error) {
	const nobody = "doctor"
	publish := []string{b.subjects.Status(nobody), b.subjects.Output(nobody), b.subjects.Result(nobody), b.subjects.Cancel(nobody),
		"$KV." + b.subjects.Name(bucketExecutors) + "." + nobody}
	subscribe := []string{b.subjects.Cancel("*"), b.subjects.Run(), b.subjects.Stream(), b.subjects.Follow(), b.subjects.Discover(),
		b.subjects.Reply("*") + ".*", "$SRV.PING"}
	for _, engine := range engines {
		publish = append(publish, b.subjects.Exec(engine, contracts.PriorityNormal), b.subjects.Dead(engine))
		subscribe = append(subscribe, b.subjects.Bell(engine), b.subjects.Bell(engine)+".*")
	}
	var mu sync.Mutex
	var denied []string
	var tries sync.WaitGroup
	try := func(what, subject string, do func(string) error) {
		tries.Go(func() {
			if err := do(subject); err != nil {
				mu.Lock()
				defer mu.Unlock()
				denied = append(denied, fmt.Sprintf("%s %s", what, strings.ReplaceAll(subject, "."+nobody, ".*")))
			}
		})
	}
	for _, subject := range publish {
		try("publish", subject, func(subject string) error { return b.tryPublish(ctx, subject) })
	}
	// Only then: who subscribes is somebody to publish to where there is no stream, and would never answer.
	tries.Wait()
	for _, subject := range subscribe {
		try("subscribe", subject, func(subject string) error { return b.trySubscribe(ctx, subject) })
	}
	tries.Wait()
	slices.Sort(denied)
	return denied, ctx.Err()
}

// rightsWait is how long an answer may take that does not come where publishing is denied.
const rightsWait = 2 * time.Second

// tryPublish is nil where a publish got as far as a stream, or would if there were one.
func (b *Bus) tryPublish(ctx context.Context, subject string) error {
	ctx, cancel := context.WithTimeout(ctx, rightsWait)
	defer cancel()
	_, err := b.js.Publish(ctx, subject, nil, jetstream.WithExpectStream("EXECUTOR_DOCTOR"), jetstream.WithRetryAttempts(0))
	var api *jetstream.APIError
	if errors.As(err, &api) || errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders) {
		return nil
	}
	return err
}

// trySubscribe is nil where the server takes a subscription.
func (b *Bus) trySubscribe(ctx context.Context, subject string) error {
	sub, err := b.nc.QueueSubscribeSync(subject, "executor-doctor-"+b.name)
	if err != nil {
		return err
	}
	defer sub.Unsubscribe()
	ctx, cancel := context.WithTimeout(ctx, rightsWait)
	defer cancel()
	// The server says no, if it does, before it answers the ping that follows the subscription.
	if err := b.nc.FlushWithContext(ctx); err != nil {
		return err
	}
	_, err = sub.NextMsg(time.Millisecond)
	if errors.Is(err, nats.ErrPermissionViolation) {
		return err
	}
	return nil
}
